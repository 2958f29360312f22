from coca_jax.pages.charts import Line, line_chart, number, percent


def test_a_long_run_is_thinned_by_averages_that_skip_gaps():
    rows = [{"step": i, "loss": 2.0 if i % 2 else None} for i in range(100_000)]
    (chart,) = line_chart(rows, [Line("loss", "loss")], "Loss")
    assert len(repr(chart)) < 50_000 and "nan" not in repr(chart)
    assert set(chart.readings["lines"][0]["text"]) == {"2"} and chart.readings["step"][-1] == "99,999"


def test_a_flat_line_and_negative_values_have_an_axis():
    for values in ([0.0, 0.0], [3.0, 3.0], [-2.0, -1.0], [-1.0, 5.0], [1e-9, 1e6]):
        (chart,) = line_chart([{"step": i, "a": v} for i, v in enumerate(values)], [Line("a", "a")], "A")
        assert chart.y_ticks and "nan" not in repr(chart)


def test_numbers_for_people():
    assert [number(v) for v in (0, 12345.6, 123.4, 1.2345, 0.01234, 1.2e-5)] == [
        "0",
        "12,346",
        "123",
        "1.23",
        "0.0123",
        "1.2e-05",
    ]
    assert [percent(v) for v in (0, 0.0023, 0.7119, 1, float("nan"))] == ["0.0%", "0.2%", "71.2%", "100%", "–"]
