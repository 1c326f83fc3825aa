"""What `make lint` holds the tree of crates to (`tools/crates.py`, deny.toml)."""

import tomllib

import pytest
from crates import ROOT, Crate, Rules, is_allowed, problems

CRATES_IO = "registry+https://a.mirror.example/crates.io-index"
RULES = Rules.of(tomllib.loads((ROOT / "deny.toml").read_text()))


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT/GPL-3.0-only", True),
        ("MIT / Apache-2.0", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND Zlib", True),
        ("MIT AND (GPL-3.0-only OR LGPL-2.1-only)", False),
        # AND binds stronger: one of the two alternatives is all MIT.
        ("MIT OR GPL-3.0-only AND LGPL-2.1-only", True),
        ("GPL-3.0-only AND LGPL-2.1-only OR MIT", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT WITH LLVM-exception", False),
    ],
)
def test_a_licence_is_allowed_when_what_we_may_choose_is(expression: str, allowed: bool) -> None:
    assert is_allowed(expression, RULES.licenses) is allowed


@pytest.mark.parametrize("expression", ["", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT Zlib", "MIT WITH"])
def test_what_is_no_expression_is_not_guessed_at(expression: str) -> None:
    with pytest.raises(ValueError, match=r"licence|parenthesis|understood"):
        is_allowed(expression, RULES.licenses)


@pytest.mark.parametrize("name", ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"])
def test_another_tls_is_banned(name: str) -> None:
    assert list(problems([Crate(name, "1.0.0", "MIT", CRATES_IO)], RULES)) == [f"{name} 1.0.0 is banned"]


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        (CRATES_IO, True),
        (None, True),
        ("git+https://git.example/fork", False),
        ("registry+https://other.example", False),
    ],
)
def test_crates_come_from_one_registry(source: str | None, allowed: bool) -> None:
    assert (list(problems([Crate("one", "1.0.0", "MIT", source)], RULES)) == []) is allowed


def test_a_crate_without_a_licence_is_a_problem() -> None:
    assert len(list(problems([Crate("one", "1.0.0", None, CRATES_IO)], RULES))) == 1
