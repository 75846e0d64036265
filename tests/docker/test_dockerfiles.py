"""The Dockerfiles: lint, who they run as, what they copy, that what they install is pinned."""

from __future__ import annotations

import fnmatch
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.docker.reading import (
    DOCKER,
    DOCKERFILES,
    ROOT,
    argument,
    exec_form,
    instructions,
    last_stage,
    normal,
    pins,
    program,
    pyproject,
)

CONSTRAINTS = {"Dockerfile": ROOT / "constraints.txt", "Dockerfile.gpu": DOCKER / "constraints-gpu.txt"}
both = pytest.mark.parametrize("name", DOCKERFILES)


@both
def test_hadolint_finds_nothing(name):
    done = subprocess.run([program("hadolint"), DOCKER / name], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@both
def test_the_image_runs_as_a_plain_user_in_exec_form(name):
    stage = last_stage(name)
    assert [rest for word, rest in stage if word == "USER"] == ["1000:1000"]
    assert not [
        word for word, _ in stage[[word for word, _ in stage].index("USER") :] if word in ("RUN", "COPY", "ADD")
    ]
    assert exec_form(dict(stage)["CMD"]) == ["gex", "--help"]
    assert dict(stage)["STOPSIGNAL"] == "SIGTERM"
    assert "ENTRYPOINT" not in dict(stage)


def test_both_images_have_the_same_python_as_ray_asks():
    versions = {argument(name, "PYTHON_VERSION") for name in DOCKERFILES}
    assert len(versions) == 1
    assert versions.pop().startswith("3.11.")


@both
def test_everything_that_is_copied_exists_and_is_let_through(name):
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert "*" in ignored
    for word, rest in instructions(name):
        if word != "COPY" or "--from=" in rest:
            continue
        for source in [part for part in rest.split()[:-1] if not part.startswith("--")]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source


def test_the_build_sees_no_secret_and_no_other_folder():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith("!") and fnmatch.fnmatch("docker/.env", line[1:])]
    assert {line.removeprefix("!").partition("/")[0] for line in lines if line.startswith("!")} == {
        *("LICENSE", "README.md", "constraints.txt", "pyproject.toml"),
        *("docker", "flows", "gex_pipeline", "sql", "trainer"),
    }


@both
def test_dependencies_are_installed_before_any_code_is_copied(name):
    stage = last_stage(name)
    install = next(at for at, (word, rest) in enumerate(stage) if word == "RUN" and "-r requirements.txt" in rest)
    code = next(at for at, (word, rest) in enumerate(stage) if word == "COPY" and rest.startswith("gex_pipeline"))
    assert install < code
    before = [rest for word, rest in stage[:install] if word == "COPY"]
    assert all("constraints" in rest or rest.startswith("--from=requirements") for rest in before)


@both
def test_every_requirement_is_pinned_inside_its_range(name):
    command = [
        sys.executable,
        DOCKER / "requirements_of.py",
        ROOT / "pyproject.toml",
        *argument(name, "EXTRAS").split(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert set(pyproject()["dependencies"]) < set(lines)
    pinned = pins(CONSTRAINTS[name])
    for requirement in map(Requirement, lines):
        version = pinned.get(normal(requirement.name))
        assert version, f"{requirement.name} is not in {CONSTRAINTS[name].name}"
        assert requirement.specifier.contains(version), (str(requirement), version)


@both
def test_the_image_has_what_reads_a_tokenizer_that_is_a_tokenizer_model_alone(name):
    """Vicuna's is one. The driver reads it, and who renders the prompts; the CPU image could not."""
    wanted = {
        normal(Requirement(line).name)
        for extra in argument(name, "EXTRAS").split()
        for line in pyproject()["optional-dependencies"][extra]
    }
    assert {"sentencepiece", "transformers"} <= wanted


def test_sentencepiece_is_all_that_reading_such_a_tokenizer_takes(tmp_path):
    train = pytest.importorskip("sentencepiece").SentencePieceTrainer.train
    transformers = pytest.importorskip("transformers")
    texts = iter(["a dog runs in the yard", "a cat sits in the sun"])
    prefix = str(tmp_path / "tokenizer")
    train(sentence_iterator=texts, model_prefix=prefix, vocab_size=19, model_type="bpe", minloglevel=2)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}', encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".json", ".model", ".vocab"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(tokenizer("a dog runs")["input_ids"], skip_special_tokens=True).strip() == "a dog runs"


def test_an_unknown_extra_is_refused_by_name():
    command = [sys.executable, DOCKER / "requirements_of.py", ROOT / "pyproject.toml", "scoring"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "has no extra scoring; it has cluster, dev, " in done.stderr


def test_the_gpu_image_differs_in_three_versions_only():
    cpu, gpu = pins(CONSTRAINTS["Dockerfile"]), pins(CONSTRAINTS["Dockerfile.gpu"])
    different = {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]}
    assert different <= {"apache-tvm-ffi", "numpy", "triton"}
    assert {"ray", "prefect", "torch", "transformers"} <= cpu.keys() & gpu.keys()
