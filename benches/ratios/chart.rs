//! A chart of exchange and reveal against their floors over the number of callers, as SVG.

use std::fmt::Write as _;

use serde_json::Value;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 46.0;

/// An arm and its floor, with the colours of both.
const LINES: [(&str, &str, &str); 2] =
    [("exchange", "#0b6e4f", "pair"), ("reveal", "#7a3e9d", "audited")];

type Points = Vec<(f64, f64)>;

/// Draws requests a second over callers, both logarithmic; floors are dashed.
pub fn draw(rows: &[Value]) -> String {
    let of = |arm: &str, field: &str| -> Points {
        let number = |row: &Value, name: &str| row[name].as_f64().unwrap_or_default();
        let rows = rows.iter().filter(|row| row["arm"] == arm);
        rows.map(|row| (number(row, "connections"), number(row, field))).collect()
    };
    let lines: Vec<(String, &str, bool, Points)> = LINES
        .iter()
        .flat_map(|(arm, colour, floor)| {
            let floor = format!("{floor} (floor)");
            [
                ((*arm).to_owned(), *colour, false, of(arm, "perSecond")),
                (floor, *colour, true, of(arm, "floorPerSecond")),
            ]
        })
        .collect();
    let all = lines.iter().flat_map(|(.., points)| points.iter().map(|point| point.1));
    let (low, high) =
        all.fold((f64::INFINITY, 0.0_f64), |(low, high), it| (low.min(it), high.max(it)));
    let (low, high) = (low.max(1.0).log10().floor(), high.max(10.0).log10().ceil());
    let x = |callers: f64| LEFT + (WIDTH - LEFT - RIGHT) * callers.log2() / 7.0;
    let y = |rate: f64| {
        HEIGHT
            - BOTTOM
            - (HEIGHT - TOP - BOTTOM) * (rate.max(1.0).log10() - low) / (high - low).max(1.0)
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" role=\"img\" aria-label=\"Requests a second over the number of callers\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\">requests a second over callers, both logarithmic; dashed: the floor</text>\n"
    );
    let mut decade = low;
    while decade <= high {
        let (rate, at) = (10f64.powf(decade), y(10f64.powf(decade)));
        let end = WIDTH - RIGHT;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{end}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{rate:.0}</text>",
            LEFT - 8.0,
            at + 4.0
        );
        decade += 1.0;
    }
    for callers in crate::CALLERS {
        let at = x(callers as f64);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{callers}</text>",
            HEIGHT - BOTTOM + 22.0
        );
    }
    for (name, colour, dashed, points) in lines.iter().filter(|(.., points)| !points.is_empty()) {
        let path: Vec<String> = points
            .iter()
            .map(|(callers, rate)| format!("{:.1},{:.1}", x(*callers), y(*rate)))
            .collect();
        let dash = if *dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let last = points[points.len() - 1];
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            path.join(" "),
            x(last.0) + 8.0,
            y(last.1) + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
