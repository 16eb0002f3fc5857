from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from segment_fallback.cdn import opaque, rewrite
from segment_fallback.cdn.files import bundle, integration, opaque_url
from segment_fallback.cdn.rewrite import Place
from segment_fallback.names import pads
from segment_fallback.testing.cdn import find_package
from tests.page.test_script import node

PLACE = Place("/s/abc234/c", "https://cdn.example", "pad", ((b"secret", b"public"),))


def script(text: str) -> str:
    return rewrite.script(PLACE, "text/javascript", text.encode(), is_library=False).decode()


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ('return "https://cdn.segment.com"}', 'return "/s/abc234/c"}'),
        ("'https://cdn.example/next-integrations/x'", "'/s/abc234/c/next-integrations/x'"),
        ('p="https://cdn.segment.com/analytics-next/bundles/"', 'p="/s/abc234/c/analytics-next/bundles/"'),
        ('x="api.segment.io/v1"', 'x=(location.host+"/s/abc234/e")'),
        ("x='api.segment.io/v1'", 'x=(location.host+"/s/abc234/e")'),
        ('k="secret";l="secretsecret"', 'k="public";l="publicpublic"'),
    ],
)
def test_script_is_rewritten(text: str, rewritten: str) -> None:
    assert script(text) == rewritten


@pytest.mark.parametrize(
    "text",
    [
        'new RegExp("https://cdn.segment.(com|build)")',
        '"https://segment.com/docs/"',
        '"https://cdn.segment.community"',
        '"https://cdn.segment.com/analytics.js/v1/"',
        '"https://api.segment.io/v1/m"',
        '"api.segment.io/v1/t"',
        'a("// sourceMappingURL is a comment")',
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert script(text) == text


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("a();\n//# sourceMappingURL=a.js.map", "a();\n"),
        ("a();\n//# sourceMappingURL=a.js.map\n", "a();\n"),
        ("a();//# sourceMappingURL=a.js.map", "a();"),
        ("a()\n//@ sourceMappingURL=a.js.map\nb()", "a()\nb()"),
        ("a()\r\n  //# sourceMappingURL=data:application/json;base64,AAAA==", "a()\r\n"),
        ('a("\\n//# sourceMappingURL=a.map")', 'a("\\n//# sourceMappingURL=a.map")'),
    ],
)
def test_source_map_is_stripped(text: str, stripped: str) -> None:
    assert script(text) == stripped


def first_party(content: dict[str, Any], scheme: str = "https") -> Any:
    body = rewrite.settings(json.dumps(content).encode())
    return json.loads(rewrite.first_party_settings(PLACE, body, host="shop.example", scheme=scheme, key="public"))


def test_settings_without_segment_itself_get_it() -> None:
    assert first_party({"integrations": {}})["integrations"] == {
        "Segment.io": {"apiKey": "public", "apiHost": "shop.example/s/abc234/e", "protocol": "https"}
    }


def test_settings_keep_all_else() -> None:
    content = {
        "integrations": {"Segment.io": {"apiKey": "secret", "retryQueue": False}, "Heap": {"appId": "é\ud800"}},
        "plan": {"track": {}},
    }
    found = first_party(content)
    assert found["integrations"]["Heap"] == {"appId": "é\ud800"}
    assert found["integrations"]["Segment.io"]["retryQueue"] is False
    assert found["plan"] == {"track": {}}


@pytest.mark.parametrize(
    ("metrics", "scheme", "rate"),
    [
        ({"sampleRate": 0.1}, "https", 0.1),
        ({"sampleRate": 0.1}, "http", 0),
        ({}, "https", 0),
        (None, "https", 0),
        ([1], "https", 0),
    ],
)
def test_metrics_come_to_the_site_if_anywhere(metrics: object, scheme: str, rate: float) -> None:
    found = first_party({"integrations": {}, "metrics": metrics}, scheme)["metrics"]
    assert found == {"host": "shop.example/s/abc234/e", "sampleRate": rate}


ACTION = "next-integrations/actions/google-analytics-4-web/51855e573177634029a6.js"
OPAQUE = f"/s/abc234/c/i/{opaque.write(ACTION.removeprefix('next-integrations/'), 'pad')}/a"


@pytest.mark.parametrize(
    ("url", "rewritten"),
    [
        (f"https://cdn.segment.com/{ACTION}", OPAQUE),
        (f"https://cdn.example/{ACTION}", OPAQUE),
        ("https://cdn.example/next-integrations/vendor/a.js", f"/s/abc234/c/i/{opaque.write('vendor/a.js', 'pad')}/a"),
        (f"https://other.example/{ACTION}", None),
        (f"http://cdn.segment.com/{ACTION}", None),
        (f"https://cdn.segment.com/x/{ACTION}", None),
        ("https://cdn.segment.com/next-integrations/actions/../x.js", None),
        ("https://cdn.segment.com/other/x.js", None),
        ("https://[", None),
        ("", None),
    ],
)
def test_plugin_is_loaded_from_the_site_without_its_name(url: str, rewritten: str | None) -> None:
    plugins: list[object] = [{"name": "GA", "url": url, "settings": {}}, {"name": "no url"}, 5]
    found = first_party({"integrations": {}, "remotePlugins": plugins})["remotePlugins"]
    assert found == [{"name": "GA", "url": rewritten or url, "settings": {}}, {"name": "no url"}, 5]


DESTINATIONS = """
adobe-analytics amplitude amplitude-plugins appcues bing-ads braze chameleon clevertap criteo customerio drift
elevio facebook-pixel fullstory google-adwords-new google-analytics google-tag-manager heap hotjar hubspot
hubspot-web intercom iterate kissmetrics linkedin-insight-tag mixpanel mouseflow optimizely pendo quantcast
rollbar sentry tapfiliate visual-website-optimizer webhooks yandex-metrica edge edge_sdk comscore
"""


@pytest.mark.parametrize("name", DESTINATIONS.split())
def test_plain_and_encoded_names_are_told_apart(name: str) -> None:
    for path in (f"actions/{name}/51855e573177634029a6.js", f"integrations/{name}/1.0.0/{name}.dynamic.js.gz"):
        file = integration(path)
        assert file is not None
        assert file.path == f"/next-integrations/{path}"
    url = f"https://cdn.segment.com/next-integrations/actions/{name}/51855e573177634029a6.js"
    ours = opaque_url(url, "/c", pads()[0], "")
    assert not re.search(f"{name}|51855e", ours)
    for path in (ours.removeprefix("/c/i/"), as_the_library_does(ours).removeprefix("/c/i/")):
        file = integration(path)
        assert file is not None
        assert file.path == f"/next-integrations/actions/{name}/51855e573177634029a6.js"


def as_the_library_does(url: str) -> str:
    """With its option ``obfuscate``, and without our change of its text."""
    name = url.split("/")[-2]
    return url.replace(name, base64.b64encode(name.encode()).decode().rstrip("="), 1)


@pytest.mark.parametrize(
    ("name", "immutable"),
    [
        ("ajs-destination.bundle.40628baed746e9904edc.js", True),
        ("407.bundle.61efa1acb302134c434b.js", True),
        ("index.js", False),
        ("deadbeef.js", False),
        ("a.bundle.40628baed746e9904edg.js", False),
    ],
)
def test_only_a_hash_in_its_name_makes_a_file_immutable(name: str, immutable: bool) -> None:
    file = bundle(name)
    assert file is not None
    assert file.immutable is immutable


def test_destination_by_version_is_not_immutable() -> None:
    for version in ("latest", "2.2.3"):
        file = integration(f"integrations/heap/{version}/heap.dynamic.js.gz")
        assert file is not None
        assert not file.immutable
    vendor = integration("integrations/vendor/commons.c42222c4cb2f8913500f.js.gz")
    assert vendor is not None
    assert vendor.immutable


@pytest.fixture(scope="module")
def library() -> dict[str, bytes]:
    """The files of the real analytics.js, by name."""
    package = find_package()
    assert package, "npm install (in the checkout)"
    return {file.name: file.read_bytes() for file in Path(package, "dist", "umd").glob("*.js")}


def of_library(text: bytes) -> bytes:
    return rewrite.script(PLACE, "text/javascript", text, is_library=True)


EXPRESSIONS = [*(words for words, _ in rewrite.SHORTER), rewrite.OBFUSCATE, rewrite.BUNDLES]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda expression: expression.pattern.decode()[:40])
def test_every_text_that_is_replaced_is_in_the_real_library(
    library: dict[str, bytes], expression: re.Pattern[bytes]
) -> None:
    found = {name: len(expression.findall(text)) for name, text in library.items() if name != "index.js"}
    assert 1 <= sum(found.values()) <= 3
    assert not [name for name, text in library.items() if expression.search(of_library(text))]


PATHS = re.compile(
    rb"""["'`](?:[^"'`]*/)?(?:next-integrations|analytics-next/|bundles|projects|settings)\b[^"'`]*["'`]"""
)


def test_no_path_with_words_is_left_in_the_real_library(library: dict[str, bytes]) -> None:
    left = {each for text in library.values() for each in PATHS.findall(of_library(text)) if b"/" in each}
    assert len({each for text in library.values() for each in PATHS.findall(text) if b"/" in each}) >= 4
    assert left == set()


def test_bundles_of_the_real_library_have_opaque_names(library: dict[str, bytes]) -> None:
    names = [name for name in library if ".bundle." in name]
    script = of_library(library["standalone.js"])
    assert len(names) == 8
    for name in names:
        assert f'"{opaque.write(name, PLACE.pad)}"'.encode() in script
        assert name.split(".")[2].encode() not in script
        file = bundle(opaque.write(name, pads()[0]))
        assert file is not None
        assert file.local == name


def test_rewritten_library_is_still_javascript(library: dict[str, bytes], tmp_path: Path) -> None:
    for name, text in library.items():
        tmp_path.joinpath(name).write_bytes(of_library(text))
        subprocess.run([node(), "--check", str(tmp_path / name)], check=True)


def run(script: str) -> Any:
    return json.loads(subprocess.run([node(), "-p", script], check=True, stdout=subprocess.PIPE, text=True).stdout)


@pytest.mark.parametrize("name", ["a", "google-analytics", "x_y.z" * 20])
def test_name_is_written_by_javascript_as_by_us(name: str) -> None:
    written = of_library(b'btoa(t).replace(/=/g,"")').decode()
    assert run(f"let t = {json.dumps(name)}; JSON.stringify({written})") == opaque.write(name, PLACE.pad)
    assert name in opaque.readings(opaque.write(name, pads()[0]))


@pytest.mark.parametrize(
    "form",
    [
        b'function(t){return({1:"a"}[t]||t)+".bundle."+{1:"00",2:"11"}[t]+".js"}',
        b't=>({1:"a"}[t]||t)+".bundle."+{1:"00",2:"11"}[t]+".js"',
        b't=>({}[t]||t)+".bundle."+{1:"00",2:"11"}[t]+".js"',
    ],
)
def test_name_of_a_bundle_is_that_of_webpack(form: bytes) -> None:
    ours = run(f"JSON.stringify([1,2].map({of_library(form).decode()}))")
    theirs = run(f"JSON.stringify([1,2].map({form.decode()}))")
    assert ours == [opaque.write(name, PLACE.pad) for name in theirs]


@pytest.mark.parametrize(
    "text",
    [
        b't=>({a:"a"}[t]||t)+".bundle."+{a:"00"}[t]+".js"',
        b't=>({1:f}[t]||t)+".bundle."+{1:"00"}[t]+".js"',
        b't=>t+".js"',
        b'"/v1/projects/"+f("/x/")+"/settings"',
        b'"/v1/projects"',
    ],
)
def test_text_of_another_version_stays(text: bytes) -> None:
    assert of_library(text) == text


@pytest.mark.parametrize(
    "text", ['"/integrations/"', '"/latest/"', '".js.gz"', 'a:"latest"', 'btoa(t).replace(/=/g,"")']
)
def test_code_of_a_destination_keeps_its_own_paths(text: str) -> None:
    assert script(text) == text


def test_dependency_of_a_destination_has_an_opaque_name() -> None:
    path = "integrations/vendor/commons.c42222c4cb2f8913500f.js"
    assert script(f'window.xDeps=["/{path}"]') == f'window.xDeps=["/{opaque.write(path, PLACE.pad)}"]'
    file = integration(opaque.write(path, pads()[0]) + ".gz")  # which the library appends
    assert file is not None
    assert (file.path, file.immutable) == (f"/next-integrations/{path}.gz", True)


NAMED = "google-analytics"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("d/{}/2.2.3/{}", f"integrations/{NAMED}/2.2.3/{NAMED}.dynamic.js.gz"),
        ("d/{}/l/{}", f"integrations/{NAMED}/latest/{NAMED}.dynamic.js.gz"),
        ("m/{}/{}", f"middleware/{NAMED}/latest/{NAMED}.js.gz"),
        # Where a version of the library lacks some of the texts.
        ("d/{}/2.2.3/{}.dynamic.js.gz", f"integrations/{NAMED}/2.2.3/{NAMED}.dynamic.js.gz"),
        ("integrations/{}/2.2.3/{}", f"integrations/{NAMED}/2.2.3/{NAMED}.dynamic.js.gz"),
        ("m/{}/latest/{}", f"middleware/{NAMED}/latest/{NAMED}.js.gz"),
        ("m/{}/{}.js.gz", f"middleware/{NAMED}/latest/{NAMED}.js.gz"),
        ("middleware/{}/latest/{}.js.gz", f"middleware/{NAMED}/latest/{NAMED}.js.gz"),
    ],
)
@pytest.mark.parametrize("form", ["opaque", "base64", "plain"])
def test_short_path_of_a_destination_is_read(path: str, meant: str, form: str) -> None:
    base64_ = base64.b64encode(NAMED.encode()).decode().rstrip("=")
    name = {"opaque": opaque.write(NAMED, pads()[0]), "base64": base64_, "plain": NAMED}[form]
    file = integration(path.format(name, name))
    assert file is not None
    assert file.path == f"/next-integrations/{meant}"


def test_name_written_under_a_retired_secret_is_read(settings: Any) -> None:
    written = opaque.write("schemaFilter.bundle.a6a77355d52c20e3a83d.js", pads()[0])
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    assert bundle(written) is not None
    settings.SECRET_KEY_FALLBACKS = []
    assert bundle(written) is None
