"""Addresses: what is printed is read back, whatever modules and keys are called."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from inspector import Site
from inspector.sites import KINDS, key, quote

awkward = st.text(st.sampled_from("ab.01_@:[]'\"\\-* \n\té日\u0301/\x00"), max_size=8)
paths = st.one_of(awkward, st.text(max_size=12), st.from_regex(r"[a-z_]\w*(\.\w+)*", fullmatch=True))
leaves = st.lists(st.one_of(st.integers(-9, 99), st.text(max_size=6), awkward), max_size=4).map(tuple)
calls = st.one_of(st.none(), st.integers(0, 10**12))
sites = st.builds(Site, paths, calls, st.sampled_from(KINDS), leaves)


@given(sites)
@example(Site("", 0, "output", ("",)))
@example(Site("a'b\\'", None, "output", ("0",)))
@example(Site("\\", None, "input", ('"]', "\\", "-1", -1)))
def test_every_site_is_read_back_as_it_was_printed(site):
    assert Site.parse(str(site)) == site
    assert Site.parse(site) is site


@given(sites, sites)
def test_two_sites_never_share_an_address(one, other):
    assert (str(one) == str(other)) == (one == other)


@given(paths, calls)
def test_the_key_of_a_call_is_the_address_of_its_output(path, call):
    assert Site.parse(key(path, call)) == Site(path, call)
    assert Site.parse(quote(path)) == Site(path)


@given(st.text(max_size=20))
def test_any_text_is_an_address_or_a_value_error_that_shows_the_grammar(text):
    try:
        site = Site.parse(text)
    except ValueError as error:
        assert "path[@call][:kind][leaf]" in str(error)
    else:
        assert Site.parse(str(site)) == site


@given(st.from_regex(r"[a-zé_]\w{0,8}", fullmatch=True))
def test_an_unknown_kind_is_refused_with_the_kinds_there_are(kind):
    assume(kind not in KINDS)
    with pytest.raises(ValueError, match="output, input, grad, grad_input, attention, gates"):
        Site.parse(f"relu:{kind}")


@pytest.mark.parametrize(
    ("text", "site"),
    [
        ("layer4", Site("layer4")),
        ("relu@1", Site("relu", 1)),
        ("lstm:output[0]", Site("lstm", None, "output", (0,))),
        ("lstm[1][0]", Site("lstm", None, "output", (1, 0))),
        ("attn:attention", Site("attn", None, "attention")),
        ("block:input[x]", Site("block", None, "input", ("x",))),
        ('block:input["any text"]', Site("block", None, "input", ("any text",))),
        ("out:output[logits]", Site("out", None, "output", ("logits",))),
        ("'a:b'@1", Site("a:b", 1)),
        (":grad", Site("", None, "grad")),
        ("", Site("")),
    ],
)
def test_the_addresses_of_the_design(text, site):
    assert Site.parse(text) == site


@pytest.mark.parametrize(
    "text", ["relu@", "relu@-1", "relu@x", "relu:output[", "relu:output]", "'open", "a@1@2", "a:grad:grad"]
)
def test_what_is_left_over_is_an_error(text):
    with pytest.raises(ValueError, match="no address"):
        Site.parse(text)


def test_plain_names_are_printed_plainly():
    assert str(Site("layer4.0.conv1", 2, "grad", (0, "logits"))) == "layer4.0.conv1@2:grad[0][logits]"
