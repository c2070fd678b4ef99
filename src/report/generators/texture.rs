//! Synthetic over real power, by octave: do the images have the speckle of real ones?

use super::{Figure, ReportInput, ReportedGenerator, of, over_all, span};
use crate::{
    report::{
        HEAD,
        axes::{Frame, Key, Look, MOST_SERIES, NAMED, NORMAL, SMALL, columns, legend, looks, title_height},
        scene::{Anchor, DOUBLE, INK, MUTED, Point, Rgb, Scene, Text},
    },
    results::{GOOD_TEXTURE, Measurement, OCTAVES},
    vocabulary::Metric,
};

const BAND: Rgb = (0, 158, 115);
/// Ratios beyond 2 to the power of these are drawn at the edge.
const FARTHEST: f64 = 10.0;

/// One generator's ratio in an octave, as powers of 2: over all, of the lowest and of the highest class.
struct Ratio {
    all: f64,
    low: f64,
    high: f64,
}

fn ratio(rows: &[Measurement], generator: &ReportedGenerator, octave: &str) -> Option<Ratio> {
    let power = |value: f64| value.log2().clamp(-FARTHEST, FARTHEST);
    let all = over_all(rows, generator, octave, Metric::Texture).filter(|r| r.value >= 0.0)?;
    let classes =
        of(rows, generator, Metric::Texture.as_str()).filter(|r| r.structure == octave && r.value >= 0.0);
    let (low, high) = classes
        .map(|r| power(r.value))
        .fold((power(all.value), power(all.value)), |(low, high), p| (low.min(p), high.max(p)));
    Some(Ratio { all: power(all.value), low, high })
}

/// `1/4`, `1`, `8`: a power of two.
fn power_label(power: i32) -> String {
    let size = 2f64.powi(power.abs());
    if power < 0 { format!("1/{size}") } else { size.to_string() }
}

/// A generator's ratios, by octave.
struct TextureSeries<'a> {
    /// Its place in the report.
    place: usize,
    generator: &'a ReportedGenerator,
    ratios: [Option<Ratio>; 4],
}

/// None where no generator's texture was measured.
pub(super) fn figure(input: &ReportInput, rows: &[Measurement]) -> Option<Figure> {
    let series: Vec<TextureSeries> = input
        .generators
        .iter()
        .enumerate()
        .map(|(place, generator)| TextureSeries {
            place,
            generator,
            ratios: OCTAVES.map(|octave| ratio(rows, generator, octave)),
        })
        .filter(|series| series.ratios.iter().any(Option::is_some))
        .collect();
    if series.is_empty() {
        return None;
    }
    let seen = || series.iter().flat_map(|s| &s.ratios).flatten();
    let low = seen().map(|r| r.low).fold(-2.0, f64::min).floor();
    let high = seen().map(|r| r.high).fold(2.0, f64::max).ceil();
    let count = |s: &TextureSeries| over_all(rows, s.generator, OCTAVES[0], Metric::Texture)?.n;
    let n = span(series.iter().filter_map(count));
    let plot = TexturePlot { series: &series, low, high, n: format!("n = {n} images") };
    Some(Figure {
        name: "generators_texture".to_owned(),
        title: "Generators: texture".to_owned(),
        caption: format!(
            "Power of the synthetic images (n = {n}) over the power of the real training images inside the ultrasound sector, by octave of wavelength in pixels of the generator's images; logarithmic. Marker: all images. Bar: from the lowest to the highest class of view and phase. Line at 1: the same texture as the real images. Below: smoother. Above: grainier. Band: {} to {}.",
            GOOD_TEXTURE.0, GOOD_TEXTURE.1
        ),
        scene: if series.len() > MOST_SERIES { plot.panels() } else { plot.together(DOUBLE) },
        narrow: None,
        head: (series.len() <= MOST_SERIES).then(|| plot.together(HEAD)),
    })
}

struct TexturePlot<'a> {
    series: &'a [TextureSeries<'a>],
    /// Powers of 2.
    low: f64,
    high: f64,
    n: String,
}

impl TexturePlot<'_> {
    fn looks(&self) -> Vec<Look> {
        looks(&self.series.iter().map(|s| s.place).collect::<Vec<_>>())
    }

    /// All generators on the same axes.
    fn together(&self, page: f64) -> Scene {
        let looks = self.looks();
        let name = |(s, look): (&TextureSeries, &Look)| (s.generator.name.clone(), *look);
        let names: Vec<_> = self.series.iter().zip(&looks).map(name).collect();
        let (left, width) = (46.0, page - 50.0);
        let head = legend(None, (0.0, 0.0), width, &names, Key::Line) + 20.0;
        let mut scene = Scene::new(page, head + 170.0 + 40.0);
        legend(Some(&mut scene), (left, 3.0), width, &names, Key::Line);
        scene.add(Text::new((left + width, head - 5.0), self.n.as_str(), SMALL, Anchor::End).color(MUTED));
        let frame = self.frame((left, head), (width, 170.0));
        self.axes(&mut scene, &frame, true);
        let pitch = (0.5 / self.series.len() as f64).min(0.12);
        for (at, (series, look)) in self.series.iter().zip(looks).enumerate() {
            let shift = (at as f64 - (self.series.len() as f64 - 1.0) / 2.0) * pitch;
            draw(&mut scene, &frame, series, look, shift);
        }
        scene
    }

    /// A panel per generator.
    fn panels(&self) -> Scene {
        const ACROSS: usize = 3;
        let places = columns(DOUBLE, ACROSS, 40.0);
        let titles = title_height(self.series.iter().map(|s| s.generator.name.as_str()), places[0].1);
        let (high, step) = (90.0, 90.0 + titles + 46.0);
        let mut scene = Scene::new(DOUBLE, self.series.len().div_ceil(ACROSS) as f64 * step + 26.0);
        scene.add(Text::new((DOUBLE - 4.0, 8.0), self.n.as_str(), SMALL, Anchor::End).color(MUTED));
        for (i, series) in self.series.iter().enumerate() {
            let (left, width) = places[i % ACROSS];
            let frame = self.frame((left, titles + 24.0 + (i / ACROSS) as f64 * step), (width, high));
            self.axes(&mut scene, &frame, i % ACROSS == 0);
            frame.title(&mut scene, &series.generator.name);
            draw(&mut scene, &frame, series, NAMED, 0.0);
        }
        scene
    }

    fn frame(&self, (left, top): Point, (width, height): Point) -> Frame {
        let y = (self.low - 0.15, self.high + 0.15);
        Frame { left, top, width, height, x: (0.0, OCTAVES.len() as f64), y }
    }

    fn axes(&self, scene: &mut Scene, frame: &Frame, is_first: bool) {
        let (left, right) = (frame.left, frame.left + frame.width);
        let good = (frame.at_y(GOOD_TEXTURE.1.log2()), frame.at_y(GOOD_TEXTURE.0.log2()));
        scene.rect((left, good.0), (frame.width, good.1 - good.0), BAND, 0.12);
        let most = (frame.height / 20.0).max(2.0);
        let step = ((self.high - self.low) / most).ceil().max(1.0) as i32;
        let ticks = (self.low as i32..=self.high as i32).filter(|p| p % step == 0);
        let named = ticks.map(|power| (f64::from(power), power_label(power))).collect();
        frame.draw_y_at(scene, if is_first { "Power, synthetic / real" } else { "" }, named);
        scene.line(vec![(left, frame.at_y(0.0)), (right, frame.at_y(0.0))], MUTED, 1.0, &[]);
        let bottom = frame.bottom();
        scene.line(vec![(left, bottom), (right, bottom)], INK, 0.6, &[]);
        for (i, octave) in OCTAVES.iter().enumerate() {
            scene.text((frame.at_x(i as f64 + 0.5), bottom + 11.0), *octave, SMALL, Anchor::Middle);
        }
        let label = (left + frame.width / 2.0, bottom + 24.0);
        scene.text(label, "Wavelength (finest on the left)", NORMAL, Anchor::Middle);
    }
}

fn draw(scene: &mut Scene, frame: &Frame, series: &TextureSeries<'_>, look: Look, shift: f64) {
    let place = |octave: usize, power: f64| (frame.at_x(octave as f64 + 0.5 + shift), frame.at_y(power));
    let known: Vec<(usize, &Ratio)> =
        series.ratios.iter().enumerate().filter_map(|(o, r)| Some((o, r.as_ref()?))).collect();
    let line: Vec<Point> = known.iter().map(|(o, r)| place(*o, r.all)).collect();
    scene.line(line, look.color, 1.0, look.dash);
    for (octave, r) in known {
        scene.line(vec![place(octave, r.low), place(octave, r.high)], look.color, 0.8, &[]);
        look.draw_marker(scene, place(octave, r.all), 2.8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_written_as_fractions() {
        assert_eq!([-10, -1, 0, 3].map(power_label), ["1/1024", "1/2", "1", "8"]);
    }
}
