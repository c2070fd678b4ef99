//! Synthetic over real power, by octave: have the images the speckle of the real ones?

use super::{Figure, ReportInput, ReportedGenerator, of, over_all, span};
use crate::{
    report::{
        axes::{Frame, Key, NORMAL, legend, look},
        scene::{Anchor, DOUBLE, INK, MUTED, Point, Rgb, Scene},
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

/// None where texture was measured of none.
pub(super) fn figure(input: &ReportInput, rows: &[Measurement]) -> Option<Figure> {
    let series: Vec<(usize, &ReportedGenerator, [Option<Ratio>; 4])> = input
        .generators
        .iter()
        .enumerate()
        .map(|(i, g)| (i, g, OCTAVES.map(|octave| ratio(rows, g, octave))))
        .filter(|(.., ratios)| ratios.iter().any(Option::is_some))
        .collect();
    if series.is_empty() {
        return None;
    }
    let seen = || series.iter().flat_map(|s| &s.2).flatten();
    let low = seen().map(|r| r.low).fold(-2.0, f64::min).floor();
    let high = seen().map(|r| r.high).fold(2.0, f64::max).ceil();
    let names: Vec<_> = series.iter().map(|(i, g, _)| (g.name.clone(), look(*i))).collect();
    let (left, width) = (46.0, DOUBLE - 50.0);
    let head = legend(None, (0.0, 0.0), width, &names, Key::Line) + 14.0;
    let mut scene = Scene::new(DOUBLE, head + 170.0 + 40.0);
    legend(Some(&mut scene), (left, 3.0), width, &names, Key::Line);
    let frame = Frame {
        left,
        top: head,
        width,
        height: 170.0,
        x: (0.0, OCTAVES.len() as f64),
        y: (low - 0.15, high + 0.15),
    };
    let good = (frame.at_y(GOOD_TEXTURE.1.log2()), frame.at_y(GOOD_TEXTURE.0.log2()));
    scene.rect((left, good.0), (width, good.1 - good.0), BAND, 0.12);
    let step = ((high - low) / 8.0).ceil().max(1.0) as i32;
    let ticks = (low as i32..=high as i32).filter(|p| p % step == 0);
    frame.draw_y_at(
        &mut scene,
        "Power, synthetic / real",
        ticks.map(|power| (f64::from(power), power_label(power))).collect(),
    );
    let one = frame.at_y(0.0);
    scene.line(vec![(left, one), (left + width, one)], MUTED, 1.0, &[]);
    let bottom = frame.bottom();
    scene.line(vec![(left, bottom), (left + width, bottom)], INK, 0.6, &[]);
    for (i, octave) in OCTAVES.iter().enumerate() {
        scene.text((frame.at_x(i as f64 + 0.5), bottom + 12.0), *octave, NORMAL, Anchor::Middle);
    }
    let label = (left + width / 2.0, bottom + 26.0);
    scene.text(label, "Wavelength (finest on the left)", NORMAL, Anchor::Middle);
    let pitch = (0.5 / series.len() as f64).min(0.12);
    for (at, (i, _, ratios)) in series.iter().enumerate() {
        let shift = (at as f64 - (series.len() as f64 - 1.0) / 2.0) * pitch;
        let place = |octave: usize, power: f64| (frame.at_x(octave as f64 + 0.5 + shift), frame.at_y(power));
        let known: Vec<(usize, &Ratio)> =
            ratios.iter().enumerate().filter_map(|(o, r)| Some((o, r.as_ref()?))).collect();
        let line: Vec<Point> = known.iter().map(|(o, r)| place(*o, r.all)).collect();
        scene.line(line, look(*i).color, 1.0, look(*i).dash);
        for (octave, r) in known {
            scene.line(vec![place(octave, r.low), place(octave, r.high)], look(*i).color, 0.8, &[]);
            look(*i).draw_marker(&mut scene, place(octave, r.all), 2.8);
        }
    }
    let n = span(series.iter().filter_map(|(_, g, _)| over_all(rows, g, OCTAVES[0], Metric::Texture)?.n));
    Some(Figure {
        name: "generators_texture".to_owned(),
        title: "Generators: texture".to_owned(),
        caption: format!(
            "Power of the synthetic images (n = {n}) over that of the real training images inside the ultrasound sector, by octave of wavelength in pixels of the generator's images; logarithmic. Marker: all images; bar: from the lowest to the highest class of view and phase. Line at 1: the same texture as the real images; below: smoother; above: grainier. Band: {} to {}.",
            GOOD_TEXTURE.0, GOOD_TEXTURE.1
        ),
        scene,
        narrow: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_written_as_fractions() {
        assert_eq!([-10, -1, 0, 3].map(power_label), ["1/1024", "1/2", "1", "8"]);
    }
}
