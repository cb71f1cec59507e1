"""How the page looks: gradio's Soft theme with readable colours and plain labels, our style sheets, our script."""

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent

_QUIET, _QUIET_DARK = "*neutral_600", "*neutral_300"  # 4.5 : 1 or more on every background of the page

THEME = gr.themes.Soft(font=["ui-sans-serif", "system-ui", "sans-serif"]).set(
    body_text_color_subdued=_QUIET,
    body_text_color_subdued_dark=_QUIET_DARK,
    input_placeholder_color=_QUIET,
    input_placeholder_color_dark=_QUIET_DARK,
    color_accent="*primary_600",
    link_text_color="*primary_700",
    link_text_color_hover="*primary_800",
    link_text_color_visited="*primary_700",
    link_text_color_dark="*primary_300",
    link_text_color_hover_dark="*primary_200",
    link_text_color_visited_dark="*primary_300",
    link_text_color_active="*primary_800",
    link_text_color_active_dark="*primary_200",
    # labels are plain text; those that lie on a picture keep the background of a block
    block_title_background_fill="none",
    block_title_background_fill_dark="none",
    block_title_padding="0",
    block_title_text_color="*body_text_color",
    block_title_text_color_dark="*body_text_color",
    block_label_background_fill="*block_background_fill",
    block_label_background_fill_dark="*block_background_fill",
    block_label_text_color="*body_text_color",
    block_label_text_color_dark="*body_text_color",
    # what is filled with the accent bears white text
    slider_color="*primary_600",
    slider_color_dark="*primary_400",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_hover_dark="*primary_700",
    button_primary_border_color="*primary_600",
    button_secondary_background_fill_hover_dark="*neutral_700",
    checkbox_label_background_fill_selected="*primary_600",
    # edges that say what can be clicked or typed into: 3 : 1
    button_border_width="1px",
    button_secondary_border_color="*neutral_500",
    button_secondary_border_color_hover="*neutral_700",
    button_secondary_border_color_dark="*neutral_400",
    button_secondary_border_color_hover_dark="*neutral_200",
    input_border_width="1px",
    input_border_color="*neutral_500",
    input_border_color_dark="*neutral_400",
    input_shadow="none",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_400",
)

LOOK = {
    "theme": THEME,
    "css_paths": sorted(HERE.glob("*.css")),
    "js": (HERE / "page.js").read_text(),
    "head": f"<script>{(HERE / 'stream.js').read_text()}</script>",  # before gradio's page asks for anything
}
"""What `launch` needs for it."""
