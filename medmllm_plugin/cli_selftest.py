"""The command `medmllm selftest`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from medmllm_plugin.cli_common import json_option, print_json, print_lines
from medmllm_plugin.outputs import check, whole_folder


@click.command("selftest")
@click.option(
    "--model",
    metavar="NAME",
    default="embedded",
    show_default=True,
    help="See medmllm models; truth tests the chain alone.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="NAME",
    help="A kind of phantom, may be repeated; all that the model reads if left out.",
)
@click.option(
    "-n", "studies", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="Phantoms."
)
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of the first; 2200000000 if left out.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Processes."
)
@click.option("--node", metavar="AE@HOST:PORT", help="Test a node that runs: phantoms are sent to it.")
@click.option("--http", "url", metavar="URL", help="With --node: its HTTP API; port 8042 there if left out.")
@click.option("--token-env", metavar="NAME", help="With --node: environment variable with its HTTP token.")
@click.option(
    "--ae-title", metavar="AE", default="SELFTEST", show_default=True, help="With --node: who sends."
)
@click.option("--strict", is_flag=True, help="Hold the model to the bars of one that reads phantoms well.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT_DIR", help="Where to write.")
@json_option
def selftest_command(
    model: str,
    kinds: tuple[str, ...],
    studies: int,
    seed: int | None,
    jobs: int,
    node: str | None,
    url: str | None,
    token_env: str | None,
    ae_title: str,
    strict: bool,
    out: Path | None,
    as_json: bool,
) -> int:
    """Test the whole chain with phantoms, as one tests a scanner every morning.

    Each phantom goes from DICOM on disk through reading, model, reports and back from the DICOM SR, and is
    compared with its truth in the patient's millimetres: first with a reader that knows the phantoms, so that
    every fault is the chain's, then with the model, which is held to what its card says it reached. OUT_DIR
    gets selftest.json and selftest.html with pictures of the misses. Exit code 1 if a measure is below its
    bar.

    With --node phantoms go by C-STORE to a node that runs, whose rules must read them; the SRs are fetched
    back by its HTTP API. Its model is judged, and what lies between; --model and --jobs don't count then.

    \b
    Examples:
      medmllm selftest
      medmllm selftest -n 50 --jobs 2 -o selftest
      medmllm selftest --model truth --kind ct-head --kind xr-chest
      medmllm selftest --node MEDMLLM@127.0.0.1:11112 -n 5
    """  # noqa: D301
    from medmllm_plugin import selftest
    from medmllm_plugin.console import shown_progress

    if out is not None:
        check(out, kind="selftest")
    with shown_progress(hidden=as_json) as progress:
        progress("selftest", 0, studies)
        how: dict[str, Any] = {
            "kinds": kinds,
            "studies": studies,
            "seed": selftest.FIRST_SEED if seed is None else seed,
            "strict": strict,
            "progress": lambda done, total: progress("selftest", done, total),
        }
        if node is None:
            result = selftest.run(model=model, jobs=jobs, **how)
        else:
            from medmllm_plugin import selftest_node

            tested = selftest_node.NodeUnderTest(node, url=url, token_env=token_env, calling_ae=ae_title)
            with closing(tested):
                result = selftest_node.run(tested, **how)
    content = result.to_json()
    if out is not None:
        from medmllm_plugin import selftest_page

        with whole_folder(out, kind="selftest") as part:
            (part / "selftest.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            (part / "selftest.html").write_text(selftest_page.render(result), encoding="utf-8")
    if as_json:
        print_json(content)
    else:
        print_lines(result.lines())
        if out is not None:
            print_lines([f"Written to {out}: selftest.html and selftest.json"])
    return 0 if result.passed else 1
