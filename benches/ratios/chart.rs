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

/// Draws requests a second over callers, both logarithmic; floors are dashed.
pub fn draw(rows: &[Value]) -> String {
    let lines = lines(rows);
    let all = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let (low, high) =
        all.fold((f64::INFINITY, 0.0_f64), |(low, high), it| (low.min(it), high.max(it)));
    let scale = Scale { low: low.max(1.0).log10().floor(), high: high.max(10.0).log10().ceil() };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" role=\"img\" aria-label=\"Requests a second over the number of callers\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\">requests a second over callers, both logarithmic; dashed: the floor</text>\n"
    );
    scale.draw(&mut svg);
    lines
        .iter()
        .filter(|line| !line.points.is_empty())
        .for_each(|line| line.draw(&mut svg, &scale));
    svg.push_str("</svg>\n");
    svg
}

struct Line {
    name: String,
    colour: &'static str,
    is_floor: bool,
    points: Vec<(f64, f64)>,
}

fn lines(rows: &[Value]) -> Vec<Line> {
    let of = |arm: &str, field: &str| {
        let number = |row: &Value, name: &str| row[name].as_f64().unwrap_or_default();
        let rows = rows.iter().filter(|row| row["arm"] == arm);
        rows.map(|row| (number(row, "connections"), number(row, field))).collect()
    };
    let lines = LINES.iter().flat_map(|(arm, colour, floor)| {
        let (rates, floors) = (of(arm, "perSecond"), of(arm, "floorPerSecond"));
        [
            Line { name: (*arm).to_owned(), colour, is_floor: false, points: rates },
            Line { name: format!("{floor} (floor)"), colour, is_floor: true, points: floors },
        ]
    });
    lines.collect()
}

/// Powers of ten at the bottom and at the top.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn x(callers: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * callers.log2() / 7.0
    }

    fn y(&self, rate: f64) -> f64 {
        let part = (rate.max(1.0).log10() - self.low) / (self.high - self.low).max(1.0);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part
    }

    fn draw(&self, svg: &mut String) {
        let mut decade = self.low;
        while decade <= self.high {
            let rate = 10f64.powf(decade);
            let (at, end) = (self.y(rate), WIDTH - RIGHT);
            let (x, y) = (LEFT - 8.0, at + 4.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{end}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{rate:.0}</text>"
            );
            decade += 1.0;
        }
        for callers in crate::CALLERS {
            let (x, y) = (Self::x(callers as f64), HEIGHT - BOTTOM + 22.0);
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{callers}</text>"
            );
        }
    }
}

impl Line {
    fn draw(&self, svg: &mut String, scale: &Scale) {
        let Self { name, colour, is_floor, points } = self;
        let place = |point: &(f64, f64)| (Scale::x(point.0), scale.y(point.1));
        let path: Vec<String> =
            points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if *is_floor { " stroke-dasharray=\"5 4\"" } else { "" };
        let (x, y) = place(&points[points.len() - 1]);
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            path.join(" "),
            x + 8.0,
            y + 4.0
        );
    }
}
