"""The installed package: two import names, one command, and nothing called `cli`."""

import configparser
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["keras_lr", "keras_lr_cli"]


def python(*arguments, cwd, path=None):
    """Run a new Python outside the checkout, which sees only installed packages."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        clean["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=clean, capture_output=True, text=True
    )


def folders_with_code():
    """The packages of the checkout, by their installed names."""
    names = []
    for folder, name in (("keras_lr", "keras_lr"), ("cli", "keras_lr_cli")):
        for file in (ROOT / folder).rglob("__init__.py"):
            names.append(".".join([name, *file.parent.relative_to(ROOT / folder).parts]))
    return sorted(names)


def registry():
    """The script that prepares texts for a package registry."""
    spec = importlib.util.spec_from_file_location("registry", ROOT / ".github/for_registry.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout, prepared as for a release."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for folder in ("keras_lr", "cli"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                target = source / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    prepare = registry()
    prepare.ROOT = source
    prepare.main("owner/name", "v0.0.0")
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """A wheel, built from the copy, which leaves no build folder in the checkout."""
    from setuptools import build_meta  # noqa: F401  a clear failure if it is missing

    out = tmp_path_factory.mktemp("wheel")
    built = python(
        *("-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "-w", str(out)),
        cwd=out,
    )
    assert built.returncode == 0, built.stderr
    (file,) = out.glob("keras_lr-*.whl")
    return file


def test_the_installed_names_are_keras_lr_and_keras_lr_cli():
    installed = importlib.metadata.distribution("keras-lr")
    assert installed.read_text("top_level.txt").split() == NAMES


def test_no_bare_cli_can_be_imported_outside_the_checkout(tmp_path):
    code = "import importlib.util as u; print([bool(u.find_spec(n)) for n in {}])"
    found = python("-c", code.format([*NAMES, "cli"]), cwd=tmp_path)
    assert found.stdout.strip() == "[True, True, False]", found.stderr


def test_the_console_script_starts_the_command_line():
    scripts = importlib.metadata.entry_points(group="console_scripts")
    (script,) = [script for script in scripts if script.name == "keras-lr"]
    assert script.value == "keras_lr_cli:main"


def test_the_wheel_contains_every_module_and_the_marker_for_type_checkers(wheel):
    files = set(zipfile.ZipFile(wheel).namelist())
    packages = sorted(
        {name.rsplit("/", 1)[0].replace("/", ".") for name in files if "__init__" in name}
    )
    assert packages == folders_with_code()
    assert {name.split("/")[0] for name in files if ".dist-info/" not in name} == set(NAMES)
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "keras_lr").rglob("*.py")}
    modules |= {
        str("keras_lr_cli" / file.relative_to(ROOT / "cli"))
        for file in (ROOT / "cli").rglob("*.py")
    }
    assert {name for name in files if name.endswith(".py")} == modules
    assert "keras_lr/py.typed" in files
    schemas = {f"keras_lr_cli/schemas/{each.name}" for each in (ROOT / "cli/schemas").iterdir()}
    assert len(schemas) == 5 and schemas <= files
    assert any(name.endswith("LICENSE") for name in files)


def test_the_unpacked_wheel_works_without_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import keras_lr_cli, sys; print(keras_lr_cli.__file__); keras_lr_cli.main(['--help'])"
    shown = python("-c", code, cwd=tmp_path, path=tmp_path / "site")
    assert shown.returncode == 0, shown.stderr
    assert str(tmp_path) in shown.stdout.splitlines()[0]
    assert "find" in shown.stdout


def test_the_wheel_requires_what_the_command_needs_without_pins(wheel):
    with zipfile.ZipFile(wheel) as files:
        (name,) = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = files.read(name).decode()
    needs = re.findall(r"^Requires-Dist: ([^;\n]+?)\s*$", metadata, flags=re.MULTILINE)
    assert sorted(re.split(">=", need)[0] for need in needs) == [
        *("click", "keras", "matplotlib", "numpy", "rich")
    ]
    for backend in ("tensorflow", "jax", "torch"):  # the user's choice, as for Keras itself
        assert f'\nRequires-Dist: {backend}; extra == "{backend}"\n' in metadata
    assert "==" not in metadata.split("\n\n")[0].replace("extra ==", "")
    assert "Requires-Python: >=3.10" in metadata


def test_the_lowest_versions_of_the_package_are_those_of_the_suite(wheel):
    with zipfile.ZipFile(wheel) as files:
        (name,) = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = files.read(name).decode()
    named = dict(re.findall(r"^Requires-Dist: ([\w-]+)>=([\d.]+)", metadata, flags=re.MULTILINE))
    named.pop("setuptools")  # of the tests themselves
    lines = (ROOT / "requirements" / "lowest.txt").read_text().splitlines()
    run_on = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: f"{version}.0"[: len(run_on[name])] for name, version in named.items()} == run_on


@pytest.mark.parametrize(
    "check",
    [
        ("twine", "check", "--strict", "WHEEL"),
        ("check_wheel_contents", "WHEEL", "--toplevel", "keras_lr,keras_lr_cli"),
        ("pyroma", "--min=10", "--skip-tests=AuthorEmail", "SOURCE"),
    ],
    ids=lambda check: check[0],
)
def test_a_registry_would_take_and_show_the_wheel(wheel, source, tmp_path, check):
    places = {"WHEEL": str(wheel), "SOURCE": str(source)}
    done = python("-m", *(places.get(each, each) for each in check), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_extra_is_named_on_the_page_of_the_installation():
    config = configparser.ConfigParser(interpolation=None)
    config.read_string((ROOT / "setup.cfg").read_text("utf-8"))
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    for extra in config["options.extras_require"]:
        assert extra == "test" or f"`{extra}`" in page, extra


def test_the_demo_installs_tensorflow_and_pip_alone_no_backend():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert '-e ".[tensorflow]"' in makefile


def test_the_version_is_that_of_the_module():
    import keras_lr

    assert importlib.metadata.version("keras-lr") == keras_lr.__version__


def test_the_page_of_a_registry_has_absolute_links_and_the_addresses_of_the_project():
    readme = (ROOT / "README.md").read_text("utf-8")
    page = registry().with_absolute_links(readme, "owner/name", "v1.2.3")
    targets = re.findall(r"\]\(([^)\s]+)\)", page)
    assert len(targets) > 20
    assert [each for each in targets if not each.startswith("https://")] == []
    image = "https://raw.githubusercontent.com/owner/name/v1.2.3/docs/images/answer.png"
    assert image in targets
    assert "https://github.com/owner/name/blob/v1.2.3/docs/tutorial.md" in targets
    assert "(https://github.com/owner/name/blob/v1.2.3/LICENSE)" in page  # a badge with a link
    setup = (ROOT / "setup.cfg").read_text("utf-8")
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(registry().with_addresses(setup, "owner/name"))
    assert config["metadata"]["url"] == "https://github.com/owner/name"
    urls = config["metadata"]["project_urls"].strip().splitlines()
    assert "Issues = https://github.com/owner/name/issues" in urls and len(urls) == 4
    assert config["metadata"]["license"] == "Apache-2.0"


def test_the_citation_names_the_version_and_the_license():
    import keras_lr

    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {keras_lr.__version__}\n" in citation
    assert "\nlicense: Apache-2.0\n" in citation
    dated = re.search(r"^date-released: (\S+)$", citation, re.MULTILINE)[1]
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\n## [{keras_lr.__version__}] - {dated}\n" in changes
