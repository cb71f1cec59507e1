"""Names that any system can store, any zip can hold and any terminal can show."""

import os
import unicodedata

import pytest

from emerdiff.filenames import distinct_stems, printable, safe_stem


@pytest.mark.parametrize(
    "name, stem",
    [
        # what can be read stays
        ("street.jpg", "street"),
        ("_MG_1234 (copy), v2 & more!.JPG", "_MG_1234 (copy), v2 & more!"),
        ("Straße am Café 東京 улица شارع.png", "Straße am Café 東京 улица شارع"),
        ("👩‍🌾🌳.png", "👩‍🌾🌳"),
        ("می‌خواهم.png", "می‌خواهم"),
        ("cafe\u0301.png", "caf\u00e9"),
        ("a.b.c.png", "a.b.c"),
        ("Dr. Smith", "Dr. Smith"),
        # folders go, whose ever they are
        ("/etc/passwd", "passwd"),
        ("../../../x.png", "x"),
        ("..\\..\\x.png", "x"),
        ("C:\\Users\\me\\x.png", "x"),
        ("a/b\\c/d.png", "d"),
        ("folder/", "folder"),
        ("C:x.png", "C_x"),
        # what Windows, a shell or a terminal takes for something else
        ('a<b>c:d"e|f?g*h.png', "a_b_c_d_e_f_g_h"),
        ("-rf.png", "rf"),
        ("--help", "help"),
        ("~root.png", "root"),
        (" . -.~hidden.png", "hidden"),
        ("end. . .png", "end"),
        ("end .png ", "end"),
        ("two\r\nlines\tand\u2028more\u3000.png", "two lines and more"),
        ("bell\a\x00\x7f\x9b\x1b[31mred.png", "bell[31mred"),
        ("photo\u202egnp.exe", "photognp"),
        ("\ufeff\u200ba\u2066b\u00adc.png", "abc"),
        ("half\ud83d.png", "half"),
        (os.fsdecode(b"latin\xe9.png"), "latin"),
        ("con.png", "_con"),
        ("NUL", "_NUL"),
        ("Com1.tar.gz", "_Com1.tar"),
        ("aux .a.png", "_aux .a"),
        ("LPT\u00b9.png", "_LPT\u00b9"),
        ("CONIN$", "_CONIN$"),
        ("console.png", "console"),
        ("com10.png", "com10"),
        # nothing is left
        *((name, "picture") for name in ("", ".", "..", "...", "/", "\\", " ", "\n", "-", "\u200d", "???.png", ".png")),
    ],
)
def test_a_safe_stem_keeps_what_can_be_read_and_nothing_else(name, stem):
    assert safe_stem(name) == stem
    assert safe_stem(safe_stem(name).replace(".", "_")) == stem.replace(".", "_")


@pytest.mark.parametrize("name", ["a" * 255, "é" * 200, "東" * 85, "🌳" * 70, "👩‍🌾" * 40, "a" * 70 + " ." * 90 + " b"])
def test_long_names_are_cut_between_characters_and_stay_apart(name):
    stem, other = safe_stem(name), safe_stem(name + "b")
    for cut in (stem, other):
        assert len(cut) <= 80 and len(cut.encode()) <= 200 and unicodedata.is_normalized("NFC", cut)
        start, digest = cut.rsplit("-", 1)
        assert name.startswith(start) and len(start) > 40 and start[-1] not in " .\u200d" and len(digest) == 8
    assert stem != other


@pytest.mark.parametrize(
    "names, stems",
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.png", "a.jpg"], ["a_png", "a_jpg"]),
        (["a.png", "A.jpg", "a.JPG"], ["a_png", "001_A_jpg", "002_a_JPG"]),
        (["a.png", "a.jpg", "a_png.gif"], ["000_a_png", "a_jpg", "002_a_png"]),
        (["a.png", "a.png", "000_a_png.gif"], ["003_a_png", "001_a_png", "000_a_png"]),
        (["a.png", "a_labels.png", "a_overlay.png"], ["a", "a_labels", "a_overlay"]),
        (["caf\u00e9.png", "cafe\u0301.png"], ["000_caf\u00e9_png", "001_caf\u00e9_png"]),
        (["?.png", "*.png", "picture.png"], ["000___png", "001___png", "picture_png"]),
        (["x\ud800.png", "x\ud801.png"], ["000_x_png", "001_x_png"]),
        (["b" * 300 + ".png", "b" * 300 + ".jpg"], None),
        (["-a.png", "a.png", "~a.png", "a .png", "A.png"] * 3, None),
        ([f"{n:03}_a.png" for n in range(4)] + ["a.png"] * 4 + [f"{n:03}_a_png.png" for n in range(4, 12)], None),
    ],
)
def test_stems_are_distinct_where_case_does_not_count(names, stems):
    found = distinct_stems(names)
    assert stems is None or found == stems
    assert len({stem.casefold() for stem in found}) == len(names)
    assert all(len(f"{stem}_overlay.png".encode()) <= 255 for stem in found)


def test_what_is_printed_is_one_line_that_no_terminal_obeys():
    text = os.fsdecode(b"\xff") + "a\nb\r\x1b]0;title\x07\x9b31m\u202e\u2028é東 🌳"
    assert printable(text) == r"\udcffa\nb\r\x1b]0;title\x07\x9b31m\u202e\u2028é東 🌳"
