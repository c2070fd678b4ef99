//! Values with their intervals, one row each.

use super::{
    axes::{Frame, Look, NORMAL, SMALL, in_one_line, tick_label},
    scene::{Anchor, FAINT, MUTED, Scene, Text, text_width, wrapped},
};
use crate::aggregate::number;

pub(super) struct DotRow {
    pub name: String,
    pub value: f64,
    /// 95 %.
    pub interval: Option<(f64, f64)>,
    /// The value with each seed.
    pub seeds: Vec<f64>,
    pub look: Look,
}

pub(super) struct DotPlot {
    pub rows: Vec<DotRow>,
    pub label: String,
    pub n: String,
    pub decimals: usize,
    pub is_logarithmic: bool,
}

const STEP: f64 = 15.0;
const NAME_LINE: f64 = 9.5;
const TOP: f64 = 18.0;

/// Round numbers on a logarithmic axis, as powers of ten: (tick, its number).
fn logarithmic_ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let of = |digits: &[f64], every: i32| -> Vec<f64> {
        let powers = (low.floor() as i32..=high.ceil() as i32).filter(|p| p % every == 0);
        powers.flat_map(|p| digits.iter().map(move |d| d.log10() + f64::from(p))).collect()
    };
    let inside = |ticks: Vec<f64>| -> Vec<f64> {
        ticks.into_iter().filter(|t| (low - 1e-9..=high + 1e-9).contains(t)).collect()
    };
    let wanted =
        [(&[1.0, 2.0, 5.0][..], 1), (&[1.0, 3.0][..], 1), (&[1.0][..], 1), (&[1.0][..], 2), (&[1.0][..], 4)];
    let mut ticks = wanted.into_iter().map(|(digits, every)| inside(of(digits, every)));
    let ticks = ticks.find(|ticks| ticks.len() <= 7).unwrap_or_default();
    ticks
        .into_iter()
        .map(|power| {
            let value = 10f64.powf(power);
            (power, tick_label(value, (-power.floor()).max(0.0) as usize))
        })
        .collect()
}

impl DotPlot {
    /// As a scene of a width.
    pub fn draw(&self, page: f64) -> Scene {
        let scaled = |value: f64| if self.is_logarithmic { value.max(1e-12).log10() } else { value };
        let most = 0.42 * page;
        let names: Vec<Vec<String>> =
            self.rows.iter().map(|row| wrapped(&row.name, NORMAL, false, most)).collect();
        let widest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
        let left = 14.0 + widest(&mut names.iter().flatten().map(|line| text_width(line, NORMAL, false)));
        let shown = |row: &DotRow| number(row.value, self.decimals);
        let right = 12.0 + widest(&mut self.rows.iter().map(|row| text_width(&shown(row), SMALL, false)));
        let height = |lines: &Vec<String>| STEP + (lines.len() - 1) as f64 * NAME_LINE;
        let high: f64 = names.iter().map(height).sum();

        let ends = || {
            self.rows.iter().flat_map(|row| {
                let interval = row.interval.map(|i| [i.0, i.1]).into_iter().flatten();
                interval.chain(row.seeds.iter().copied()).chain([row.value])
            })
        };
        let known = || ends().filter(|v| v.is_finite()).map(scaled);
        let (low, top) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
        let (low, top) = if low <= top { (low, top) } else { (0.0, 1.0) };
        let pad = (0.08 * (top - low)).max(if self.is_logarithmic { 0.1 } else { 0.004 });

        let mut scene = Scene::new(page, TOP + high + 34.0);
        let frame = Frame {
            left,
            top: TOP,
            width: page - left - right,
            height: high,
            x: (low - pad, top + pad),
            y: (0.0, 1.0),
        };
        scene.add(Text::new((8.0, 9.5), self.n.as_str(), SMALL, Anchor::Start).color(MUTED));
        match self.is_logarithmic {
            true => frame.draw_x_at(&mut scene, "", logarithmic_ticks(frame.x.0, frame.x.1)),
            false => frame.draw_x(&mut scene, ""),
        }
        // The label may be wider than the frame.
        let label = in_one_line(&self.label);
        let half = text_width(&label, NORMAL, false) / 2.0;
        let middle = (left + frame.width / 2.0).min(page - 4.0 - half).max(4.0 + half);
        scene.text((middle, frame.bottom() + 7.0 + SMALL + NORMAL), label, NORMAL, Anchor::Middle);
        let mut y = TOP;
        for (row, lines) in self.rows.iter().zip(&names) {
            let middle = y + height(lines) / 2.0;
            scene.line(vec![(left, y), (page - 4.0, y)], FAINT, 0.4, &[]);
            let first = middle + 0.36 * NORMAL - (lines.len() - 1) as f64 * NAME_LINE / 2.0;
            for (i, line) in lines.iter().enumerate() {
                scene.text((8.0, first + i as f64 * NAME_LINE), line.as_str(), NORMAL, Anchor::Start);
            }
            scene.text((page - 4.0, middle + 0.36 * SMALL), shown(row), SMALL, Anchor::End);
            y += height(lines);
            if !row.value.is_finite() {
                continue;
            }
            let at = |value: f64| frame.at_x(scaled(value));
            for seed in row.seeds.iter().filter(|v| v.is_finite()) {
                scene.line(vec![(at(*seed), middle + 2.6), (at(*seed), middle + 5.4)], MUTED, 0.7, &[]);
            }
            if let Some((a, b)) = row.interval.filter(|i| i.0.is_finite() && i.1.is_finite()) {
                scene.line(vec![(at(a), middle), (at(b), middle)], row.look.color, 1.0, &[]);
                for end in [a, b] {
                    let x = at(end);
                    scene.line(vec![(x, middle - 2.0), (x, middle + 2.0)], row.look.color, 0.8, &[]);
                }
            }
            row.look.draw_marker(&mut scene, (at(row.value), middle), 2.8);
        }
        scene
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_a_few_round_numbers() {
        let numbers = |low: f64, high: f64| -> Vec<String> {
            logarithmic_ticks(low.log10(), high.log10()).into_iter().map(|tick| tick.1).collect()
        };
        assert_eq!(numbers(0.9, 21.0), ["1", "2", "5", "10", "20"]);
        assert_eq!(numbers(0.04, 30.0), ["0.1", "0.3", "1", "3", "10", "30"]);
        assert_eq!(numbers(0.01, 20_000.0), ["0.01", "0.1", "1", "10", "100", "1000", "10\u{a0}000"]);
        assert!(numbers(1e-9, 1e9).len() <= 7);
    }
}
