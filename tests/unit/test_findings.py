"""What ``check`` and ``doctor`` say: every code, in both languages."""

import string

import pytest

from pyoco_server.model.findings.finding import Finding, FindingCode, error, info, warning, worst_first
from pyoco_server.model.findings.texts import TEXTS, described
from pyoco_server.model.text.sentences import NAME, Share, Size


@pytest.mark.parametrize("code", FindingCode)
def test_every_code_has_its_texts(code: FindingCode) -> None:
    text = TEXTS[code]
    assert all(text)
    assert text.en[0] in string.ascii_uppercase + "{" and text.en.rstrip("]").endswith((".", "}"))
    assert text.ja.rstrip("]").endswith(("。", "}"))
    assert set(NAME.findall(text.en)) == set(NAME.findall(text.ja))
    assert set(NAME.findall(text.en_hint)) == set(NAME.findall(text.ja_hint))
    assert text.ja.isascii() is False


def test_as_json() -> None:
    finding = error(FindingCode.DISK_FULL, path="/data", share=Share(0.97), free=Size(3 * 2**20), limit=None)
    assert described(finding, "en", 0.0) == {
        "severity": "error",
        "code": "disk_full",
        "message": "The disk of /data has 3.0 MiB left (97% full).",
        "hint": TEXTS[FindingCode.DISK_FULL].en_hint,
        "details": {"path": "/data", "share": 0.97, "free": 3 * 2**20},
    }
    assert described(finding, "ja", 0.0)["message"] == "/data のディスクの空きは 3.0 MiB です (使用率 97%)。"


def test_the_worst_comes_first() -> None:
    codes = list(FindingCode)
    mixed: list[Finding] = [info(codes[0]), warning(codes[1]), error(codes[2]), warning(codes[3]), error(codes[4])]
    assert [finding.code for finding in worst_first(mixed)] == [codes[2], codes[4], codes[1], codes[3], codes[0]]
