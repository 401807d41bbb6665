from __future__ import annotations

from made_labels import made

from tracesight.evaluation import evaluate, table


def test_the_table_holds_every_figure_and_names_as_they_are() -> None:
    dataset, results = made(pictures=3, objects=20)
    dataset = dataset.with_categories({**dataset.categories, 7: "nut [M3]"})
    metrics = evaluate(results, dataset, max_objects=120)
    text = table(metrics)
    assert "\x1b" not in text
    for kind in ("bbox", "segm"):
        assert f"{metrics[kind]['AP50@all']:.3f}" in text
    assert "nut [M3]" in text
    assert "warning: without examples" in text
    assert "–" in text  # for the class without examples
    assert max(map(len, text.splitlines())) <= 100
    assert "boxes" in table(evaluate(results, dataset, max_objects=9, kinds=("bbox",)))
