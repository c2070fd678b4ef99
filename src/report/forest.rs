//! Differences between arms with their intervals, one below the other (a forest plot).

use super::{
    Figure, TaskModel,
    axes::{BETTER, Frame, Look, NORMAL, POINT, SMALL, WORSE},
    comparisons::Compared,
    scene::{Anchor, DOUBLE, FAINT, INK, MUTED, SINGLE, Scene, Text, WHITE, text_width, wrapped},
};
use crate::{
    aggregate::{Claim, Comparison, Score, comparison::p_words, number, plural},
    vocabulary::Metric,
};

/// None where the model has nothing to compare.
pub(super) fn figure(compared: &Compared, of: &TaskModel<'_>) -> Option<Figure> {
    let rows: Vec<&Comparison> = compared.found.iter().filter(|c| c.model == of.model).collect();
    let first = rows.first()?;
    let score = &compared.score;
    let unit = if compared.unit.is_empty() { String::new() } else { format!(" in {}", compared.unit) };
    let name = score.short();
    let n = super::n_of(rows.iter().map(|c| c.patients), rows.iter().map(|c| c.per_seed.len() as u64));
    let tested = compared.found.iter().filter(|c| c.test.is_some()).count() as u64;
    let tested = plural(tested, "comparison", "comparisons");
    let caption = format!(
        "Each arm minus the arm in bold above it, {} patients ({n}). Point: mean over patients. Bar: 95 % paired bootstrap interval over patients, not corrected for the number of comparisons. Ticks: the difference with each seed. Filled points: significant at 0.05 (two-sided Wilcoxon signed-rank test over patients, Holm's correction over {tested}), with the same sign in every seed. Hollow points: no difference is claimed{}. The p-values are those after Holm's correction.",
        compared.split,
        if first.test.is_none() { "; one seed allows no test" } else { "" },
    ) + &margin_words(&rows);
    let what = if score.metric == Metric::Correct {
        "differences".into()
    } else {
        format!("{}_differences", score.metric)
    };
    let forest = Forest {
        rows: &rows,
        score,
        label: format!("Difference in {name}{unit}"),
        n: &n,
        // Small distances need as many decimals as overlaps.
        decimals: if rows.iter().all(|c| c.difference.abs() < 0.5) { 3 } else { 2 },
    };
    let is_main = *score == Score::main(of.task);
    Some(Figure {
        name: of.file(&what),
        title: of.title(&format!("differences in {name} between arms")),
        caption,
        scene: forest.draw(Layout::Wide),
        narrow: Some(forest.draw(Layout::Column)),
        head: is_main.then(|| forest.draw(Layout::Head)),
    })
}

/// Where the words stand.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// Two columns of a journal: names on the left of the bars, numbers on the right.
    Wide,
    /// One column: names and numbers above the bars.
    Column,
    /// The head of the page: names on the left. A table beside it has the numbers.
    Head,
}

impl Layout {
    fn page(self) -> f64 {
        match self {
            Self::Wide => DOUBLE,
            Self::Column => SINGLE,
            Self::Head => super::HEAD,
        }
    }

    /// The height of a row with a name of one line.
    fn step(self) -> f64 {
        if self == Self::Column { 25.0 } else { 15.0 }
    }

    /// The widest that an arm's name may be in one line.
    fn most(self) -> f64 {
        match self {
            Self::Wide => 150.0,
            Self::Column => SINGLE - 16.0,
            Self::Head => 112.0,
        }
    }
}

struct Forest<'a> {
    rows: &'a [&'a Comparison],
    score: &'a Score,
    label: String,
    n: &'a str,
    decimals: usize,
}

const HEADING: f64 = 16.0;
const NAME_LINE: f64 = 9.5;

impl Forest<'_> {
    fn numbers(&self, c: &Comparison) -> String {
        let number = |value: f64| number(value, self.decimals);
        match c.interval {
            Some((low, high)) => format!("{} [{}, {}]", number(c.difference), number(low), number(high)),
            None => number(c.difference),
        }
    }

    fn widest(&self, size: f64, words: impl Fn(&Comparison) -> String) -> f64 {
        self.rows.iter().map(|c| text_width(&words(c), size, false)).fold(0.0, f64::max)
    }

    /// The lines of an arm's name; in a column the numbers follow on the last one where there is room.
    fn name(&self, c: &Comparison, layout: Layout) -> Vec<String> {
        let mut lines = wrapped(&c.arm, NORMAL, false, layout.most());
        if layout == Layout::Column {
            let last = lines.last().map_or(0.0, |line| text_width(line, NORMAL, false));
            if last + text_width(&self.words(c), SMALL, false) > SINGLE - 20.0 {
                lines.push(String::new());
            }
        }
        lines
    }

    /// The numbers above a bar.
    fn words(&self, c: &Comparison) -> String {
        format!("{}, {}", self.numbers(c), tested_words(c))
    }

    fn heading(&self, against: &str, layout: Layout) -> Vec<String> {
        wrapped(&format!("against {against}"), NORMAL, true, layout.page() - 12.0)
    }

    fn draw(&self, layout: Layout) -> Scene {
        let page = layout.page();
        let names = self.widest(NORMAL, |c| c.arm.clone()).clamp(60.0, layout.most());
        let ps = self.widest(SMALL, tested_words);
        let (left, right) = match layout {
            Layout::Wide => (names + 16.0, self.widest(SMALL, |c| self.numbers(c)) + ps + 26.0),
            Layout::Column => (8.0, 8.0),
            Layout::Head => (names + 12.0, 6.0),
        };
        let height = |c: &Comparison| layout.step() + (self.name(c, layout).len() - 1) as f64 * NAME_LINE;
        let groups = || self.rows.chunk_by(|a, b| a.against == b.against);
        let headings: f64 = groups()
            .map(|group| HEADING + (self.heading(&group[0].against, layout).len() - 1) as f64 * NAME_LINE)
            .sum();
        let high = self.rows.iter().map(|c| height(c)).sum::<f64>() + headings;
        let top = if layout == Layout::Wide { 27.0 } else { 38.0 };
        let mut scene = Scene::new(page, top + high + 34.0);
        let frame =
            Frame { left, top, width: page - left - right, height: high, x: self.range(), y: (0.0, 1.0) };
        self.keys(&mut scene);
        match layout {
            Layout::Wide => {
                scene.add(Text::new((page - 4.0, 10.0), self.n, SMALL, Anchor::End).color(MUTED));
            }
            _ => scene.add(Text::new((8.0, 20.0), self.n, SMALL, Anchor::Start).color(MUTED)),
        }
        if let Some(margin) = self.rows.iter().find_map(|c| Some(c.equivalence?.margin)) {
            let (low, high) = (frame.at_x((-margin).max(frame.x.0)), frame.at_x(margin.min(frame.x.1)));
            scene.rect((low, top), (high - low, frame.height), FAINT, 0.6);
        }
        let zero = frame.at_x(0.0);
        scene.line(vec![(zero, top), (zero, frame.bottom())], INK, 0.8, &[2.5, 2.0]);
        self.sides(&mut scene, (zero, top - 4.0));
        frame.draw_x(&mut scene, &self.label);
        let mut y = top;
        for group in groups() {
            for line in self.heading(&group[0].against, layout) {
                // Its own paper, so that the zero line does not run through the words.
                let wide = text_width(&line, NORMAL, true) + 4.0;
                scene.rect((2.0, y + 1.0), (wide, HEADING - 3.0), WHITE, 1.0);
                scene.add(Text::new((4.0, y + HEADING - 5.0), line, NORMAL, Anchor::Start).bold());
                y += NAME_LINE;
            }
            y += HEADING - NAME_LINE;
            for c in group {
                self.row(&mut scene, &frame, (y, height(c)), c, layout);
                y += height(c);
            }
        }
        scene
    }

    /// The horizontal range, with room for a word on either side of zero.
    fn range(&self) -> (f64, f64) {
        let ends = || {
            self.rows.iter().flat_map(|c| {
                let interval = c.interval.map(|i| [i.0, i.1]).into_iter().flatten();
                interval.chain(c.per_seed.iter().copied()).chain([c.difference])
            })
        };
        let (low, high) = (ends().fold(0.0, f64::min), ends().fold(0.0, f64::max));
        let span = (high - low).max(1e-6);
        (low.min(-0.3 * span) - 0.06 * span, high.max(0.3 * span) + 0.06 * span)
    }

    /// Which side of zero is which.
    fn sides(&self, scene: &mut Scene, (zero, y): (f64, f64)) {
        let (left, right) = match self.score.higher_is_better() {
            true => (("← worse", WORSE), ("better →", BETTER)),
            false => (("← better", BETTER), ("worse →", WORSE)),
        };
        for ((word, look), x, anchor) in [(left, zero - 5.0, Anchor::End), (right, zero + 5.0, Anchor::Start)]
        {
            scene.add(Text::new((x, y), word, NORMAL, anchor).bold().color(look.color));
        }
    }

    fn row(&self, scene: &mut Scene, frame: &Frame, (y, high): (f64, f64), c: &Comparison, layout: Layout) {
        let page = scene.width;
        let name = self.name(c, layout);
        let middle = if layout == Layout::Column { y + high - 8.0 } else { y + high / 2.0 };
        let base = middle + 0.36 * SMALL;
        if layout == Layout::Column {
            let over = name.len() as f64 * NAME_LINE;
            scene.rect((2.0, y + 0.5), (page - 4.0, over), WHITE, 1.0);
            for (i, line) in name.iter().enumerate() {
                scene.text((8.0, y + 8.5 + i as f64 * NAME_LINE), line.as_str(), NORMAL, Anchor::Start);
            }
            let at = (page - 4.0, y + 8.5 + (name.len() - 1) as f64 * NAME_LINE);
            scene.text(at, self.words(c), SMALL, Anchor::End);
        } else {
            let first = middle + 0.36 * NORMAL - (name.len() - 1) as f64 * NAME_LINE / 2.0;
            for (i, line) in name.iter().enumerate() {
                scene.text((8.0, first + i as f64 * NAME_LINE), line.as_str(), NORMAL, Anchor::Start);
            }
            scene.line(vec![(frame.left, y), (page - 4.0, y)], FAINT, 0.4, &[]);
        }
        if layout == Layout::Wide {
            let ps = self.widest(SMALL, tested_words);
            scene.text((page - ps - 10.0, base), self.numbers(c), SMALL, Anchor::End);
            scene.text((page - 4.0, base), tested_words(c), SMALL, Anchor::End);
        }
        for seed in &c.per_seed {
            let x = frame.at_x(*seed);
            scene.line(vec![(x, middle + 2.6), (x, middle + 5.4)], MUTED, 0.7, &[]);
        }
        let (look, is_claimed) = look(c.outcome(self.score));
        if let Some((a, b)) = c.interval {
            let (a, b) = (frame.at_x(a), frame.at_x(b));
            scene.line(vec![(a, middle), (b, middle)], look.color, 1.0, &[]);
            [a, b]
                .into_iter()
                .for_each(|x| scene.line(vec![(x, middle - 2.0), (x, middle + 2.0)], look.color, 0.8, &[]));
        }
        let at = (frame.at_x(c.difference), middle);
        match is_claimed {
            true => look.draw_marker(scene, at, 2.8),
            false => look.draw_hollow_marker(scene, at, 2.8),
        }
    }

    /// What the symbols say, along the top.
    fn keys(&self, scene: &mut Scene) {
        let (mut x, y) = (8.0, 7.5);
        let mut key = |scene: &mut Scene, words: &str, draw: &dyn Fn(&mut Scene, (f64, f64))| {
            draw(scene, (x + 2.5, y));
            scene.text((x + 9.0, y + 0.36 * SMALL), words, SMALL, Anchor::Start);
            x += 9.0 + text_width(words, SMALL, false) + 9.0;
        };
        let outcomes: Vec<Claim> = self.rows.iter().map(|c| c.outcome(self.score)).collect();
        for (outcome, words) in [
            (Claim::Better, "better"),
            (Claim::Worse, "worse"),
            (Claim::Equivalent, "equivalent"),
            (Claim::Unclear, "no claim"),
            (Claim::Untested, "not tested: one seed"),
        ] {
            let (look, is_claimed) = look(outcome);
            if outcomes.contains(&outcome) {
                key(scene, words, &|scene, at| match is_claimed {
                    true => look.draw_marker(scene, at, 2.5),
                    false => look.draw_hollow_marker(scene, at, 2.5),
                });
            }
        }
        if self.rows.iter().any(|c| c.per_seed.len() > 1) {
            key(scene, "one seed", &|scene, (x, y)| {
                scene.line(vec![(x, y - 1.6), (x, y + 1.6)], MUTED, 0.7, &[]);
            });
        }
    }
}

/// What the margin adds to a caption; empty without one.
fn margin_words(rows: &[&Comparison]) -> String {
    let margin = rows.iter().find_map(|c| Some(c.equivalence?.margin));
    margin.map_or(String::new(), |margin| {
        format!(" Grey: the margin ± {margin}. Filled black points: equivalent within it (two one-sided t-tests, Holm's correction).")
    })
}

fn tested_words(c: &Comparison) -> String {
    match c.holm {
        None => "one seed: no test".to_owned(),
        Some(p) => p_words(p),
    }
}

/// How a point is drawn, and whether it is filled.
fn look(outcome: Claim) -> (Look, bool) {
    match outcome {
        Claim::Better => (BETTER, true),
        Claim::Worse => (WORSE, true),
        Claim::Equivalent => (POINT, true),
        _ => (POINT, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Task;
    use crate::{
        aggregate::measurements_table,
        report::{comparisons::compared, fake, scene::Shape},
    };

    fn drawn(seeds: u64, score: usize) -> Figure {
        let input = fake::input(&fake::FakeShape { arms: 10, seeds, patients: 30, epochs: 2 });
        let rows = measurements_table(&input.measurements).unwrap();
        let of = TaskModel { task: Task::Segmentation, model: "monai-unet", several: false, arms: &[] };
        figure(&compared(&input, &rows)[score], &of).unwrap()
    }

    fn place(scene: &Scene, words: &str) -> f64 {
        let found = scene.shapes.iter().find_map(|shape| match shape {
            Shape::Text(text) if text.text == words => Some(text.at.0),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no text {words:?}"))
    }

    #[test]
    fn filled_where_significant_and_no_test_with_one_seed() {
        let figure = drawn(3, 0);
        assert_eq!(figure.name, "segmentation_dice_differences");
        let text = format!("{:?}", figure.scene.shapes);
        assert!(
            text.contains("\"against duplicate-real 100 %\"") && text.contains("\"p < 0.001\""),
            "{text}"
        );
        assert!(figure.caption.contains("Holm's correction over 12 comparisons"), "{}", figure.caption);
        let one = drawn(1, 0);
        let text = format!("{:?}", one.narrow.unwrap().shapes);
        assert!(text.contains("one seed: no test") && !text.contains("p ="), "{text}");
        assert!(one.caption.contains("one seed allows no test"), "{}", one.caption);
    }

    #[test]
    fn the_sides_of_zero_follow_the_direction_of_the_metric() {
        let dice = drawn(3, 0);
        assert!(place(&dice.scene, "← worse") < place(&dice.scene, "better →"));
        let hd95 = drawn(3, 1);
        assert_eq!(hd95.name, "segmentation_hd95_differences");
        assert!(place(&hd95.scene, "← better") < place(&hd95.scene, "worse →"));
        // Only the main score is drawn for the head of the page.
        assert!(dice.head.is_some() && hd95.head.is_none());
    }
}
