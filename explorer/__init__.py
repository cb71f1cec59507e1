"""What is behind the page: a visitor's session, the runs, the pictures of them, and links. `app.py` lays it out."""
