//! Differences between arms with their intervals, one below the other (a forest plot).

use super::{
    Figure, TaskModel,
    axes::{Frame, NORMAL, POINT, SMALL},
    comparisons::Compared,
    scene::{Anchor, DOUBLE, FAINT, INK, MUTED, SINGLE, Scene, Text, fitted, text_width},
};
use crate::{
    aggregate::{Comparison, Verdict, comparison::p_words, number, plural},
    vocabulary::Metric,
};

/// None where the model has nothing to compare.
pub(super) fn figure(compared: &Compared, of: &TaskModel<'_>) -> Option<Figure> {
    let rows: Vec<&Comparison> = compared.found.iter().filter(|c| c.model == of.model).collect();
    let first = rows.first()?;
    let score = &compared.score;
    let mean = if score.structures.is_empty() { "" } else { "mean " };
    let unit = if compared.unit.is_empty() { String::new() } else { format!(" in {}", compared.unit) };
    let better = if score.higher_is_better() { "higher" } else { "lower" };
    let name = if score.structures.is_empty() { "accuracy" } else { score.label() };
    let label = format!("Difference in {mean}{name}{unit} ({better} is better)");
    let n = super::n_of(rows.iter().map(|c| c.patients), rows.iter().map(|c| c.per_seed.len() as u64));
    let tested = compared.found.iter().filter(|c| c.test.is_some()).count() as u64;
    let tested = plural(tested, "comparison", "comparisons");
    let caption = format!(
        "Each arm minus the one in bold above it, {} patients ({n}). Point: mean over patients; bar: 95 % paired bootstrap interval over patients; ticks: the same difference with each seed. Filled: significant at 0.05 (two-sided Wilcoxon signed-rank test over patients, Holm's correction over {tested}) and with the same sign in every seed; hollow: neither higher nor lower can be claimed{}. p: after Holm's correction; an interval is of one comparison, and not corrected.",
        compared.split,
        if first.test.is_none() { " (one seed is no ground for a test)" } else { "" },
    );
    let what = if score.metric == Metric::Correct {
        "differences".into()
    } else {
        format!("{}_differences", score.metric)
    };
    Some(Figure {
        name: of.file(&what),
        title: of.title(&format!("differences in {mean}{name} between arms")),
        caption,
        scene: draw(&rows, &label, &n, DOUBLE),
        narrow: Some(draw(&rows, &label, &n, SINGLE)),
    })
}

fn tested_words(c: &Comparison) -> String {
    match c.holm {
        None => "one seed: no test".to_owned(),
        Some(p) => p_words(p),
    }
}

fn draw(rows: &[&Comparison], label: &str, n: &str, page: f64) -> Scene {
    let narrow = page < DOUBLE;
    let decimals = if rows.iter().all(|c| c.difference.abs() < 0.5) { 3 } else { 2 };
    let values = |c: &Comparison| match c.interval {
        Some((low, high)) => format!(
            "{} [{}, {}]",
            number(c.difference, decimals),
            number(low, decimals),
            number(high, decimals)
        ),
        None => number(c.difference, decimals),
    };
    // Where there is room the words stand beside the bars, else above them.
    let labels = rows.iter().map(|c| text_width(&c.arm, NORMAL, false)).fold(60.0, f64::max).min(150.0);
    let numbers = rows.iter().map(|c| text_width(&values(c), SMALL, false)).fold(0.0, f64::max);
    let ps = rows.iter().map(|c| text_width(&tested_words(c), SMALL, false)).fold(0.0, f64::max);
    let (left, right) = if narrow { (8.0, 8.0) } else { (labels + 16.0, numbers + ps + 26.0) };
    let (step, heading) = if narrow { (25.0, 15.0) } else { (14.0, 16.0) };
    let groups = rows.chunk_by(|a, b| a.against == b.against).count();
    let (top, high) = (if narrow { 27.0 } else { 16.0 }, rows.len() as f64 * step + groups as f64 * heading);

    let ends = || {
        rows.iter().flat_map(|c| {
            c.interval
                .map(|i| [i.0, i.1])
                .into_iter()
                .flatten()
                .chain(c.per_seed.iter().copied())
                .chain([c.difference, 0.0])
        })
    };
    let (low, high_value) = (ends().fold(0.0, f64::min), ends().fold(0.0, f64::max));
    let pad = (0.06 * (high_value - low)).max(1e-6);
    let mut scene = Scene::new(page, top + high + 34.0);
    let frame = Frame {
        left,
        top,
        width: page - left - right,
        height: high,
        x: (low - pad, high_value + pad),
        y: (0.0, 1.0),
    };
    scene.add(Text::new((page - 4.0, top - 6.0), n, SMALL, Anchor::End).color(MUTED));
    keys(&mut scene, rows.iter().any(|c| c.test.is_some()));
    let zero = frame.at_x(0.0);
    scene.line(vec![(zero, top), (zero, frame.bottom())], INK, 0.8, &[2.5, 2.0]);
    frame.draw_x(&mut scene, label);
    let mut y = top;
    for group in rows.chunk_by(|a, b| a.against == b.against) {
        let words = fitted(&format!("against {}", group[0].against), NORMAL, page - 12.0);
        // Its own paper, so that the zero line does not run through the words.
        let wide = text_width(&words, NORMAL, true) + 4.0;
        scene.rect((2.0, y + 1.0), (wide, heading - 3.0), super::scene::WHITE, 1.0);
        scene.add(Text::new((4.0, y + heading - 5.0), words, NORMAL, Anchor::Start).bold());
        y += heading;
        for c in group {
            let middle = if narrow { y + 17.0 } else { y + step / 2.0 };
            let base = middle + 0.36 * SMALL;
            if narrow {
                let words = format!("{}, {}", values(c), tested_words(c));
                let room = page - 16.0 - text_width(&words, SMALL, false);
                let arm = fitted(&c.arm, NORMAL, room);
                scene.rect((2.0, y + 0.5), (page - 4.0, 10.0), super::scene::WHITE, 1.0);
                scene.text((8.0, y + 8.5), arm, NORMAL, Anchor::Start);
                scene.text((page - 4.0, y + 8.5), words, SMALL, Anchor::End);
            } else {
                scene.text(
                    (10.0, middle + 0.36 * NORMAL),
                    fitted(&c.arm, NORMAL, labels),
                    NORMAL,
                    Anchor::Start,
                );
                scene.text((page - ps - 10.0, base), values(c), SMALL, Anchor::End);
                scene.text((page - 4.0, base), tested_words(c), SMALL, Anchor::End);
                scene.line(vec![(left, y), (page - 4.0, y)], FAINT, 0.4, &[]);
            }
            for seed in &c.per_seed {
                let x = frame.at_x(*seed);
                scene.line(vec![(x, middle + 2.6), (x, middle + 5.4)], MUTED, 0.7, &[]);
            }
            if let Some((a, b)) = c.interval {
                let (a, b) = (frame.at_x(a), frame.at_x(b));
                scene.line(vec![(a, middle), (b, middle)], INK, 1.0, &[]);
                [a, b]
                    .into_iter()
                    .for_each(|x| scene.line(vec![(x, middle - 2.0), (x, middle + 2.0)], INK, 0.8, &[]));
            }
            let at = (frame.at_x(c.difference), middle);
            match c.verdict() {
                Verdict::Higher | Verdict::Lower => POINT.draw_marker(&mut scene, at, 2.8),
                Verdict::NotSignificant | Verdict::SeedsDisagree | Verdict::OneSeed => {
                    POINT.draw_hollow_marker(&mut scene, at, 2.8)
                }
            }
            y += step;
        }
    }
    scene
}

/// What the symbols say, along the top.
fn keys(scene: &mut Scene, tested: bool) {
    let words: &[&str] = if tested {
        &["significant, seeds agree", "not so", "one seed's"]
    } else {
        &["not tested: one seed"]
    };
    let (mut x, y) = (8.0, 7.5);
    for word in words {
        match *word {
            "significant, seeds agree" => POINT.draw_marker(scene, (x + 2.5, y), 2.5),
            "one seed's" => scene.line(vec![(x + 3.0, y - 1.6), (x + 3.0, y + 1.6)], MUTED, 0.7, &[]),
            _ => POINT.draw_hollow_marker(scene, (x + 2.5, y), 2.5),
        }
        scene.text((x + 9.0, y + 0.36 * SMALL), *word, SMALL, Anchor::Start);
        x += 9.0 + text_width(word, SMALL, false) + 9.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Task;
    use crate::{
        aggregate::measurements_table,
        report::{comparisons::compared, fake},
    };

    fn drawn(seeds: u64) -> Figure {
        let input = fake::input(&fake::FakeShape { arms: 10, seeds, patients: 30, epochs: 2 });
        let rows = measurements_table(&input.measurements).unwrap();
        let of = TaskModel { task: Task::Segmentation, model: "monai-unet", several: false, arms: &[] };
        figure(&compared(&input, &rows)[0], &of).unwrap()
    }

    #[test]
    fn filled_where_significant_and_no_test_with_one_seed() {
        let figure = drawn(3);
        assert_eq!(figure.name, "segmentation_dice_differences");
        let text = format!("{:?}", figure.scene.shapes);
        assert!(
            text.contains("\"against duplicate-real 100 %\"") && text.contains("\"p < 0.001\""),
            "{text}"
        );
        assert!(figure.caption.contains("Holm's correction over 12 comparisons"), "{}", figure.caption);
        let one = drawn(1);
        let text = format!("{:?}", one.narrow.unwrap().shapes);
        assert!(text.contains("one seed: no test") && !text.contains("p ="), "{text}");
        assert!(one.caption.contains("one seed is no ground for a test"), "{}", one.caption);
    }
}
