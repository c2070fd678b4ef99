//! Real images beside synthetic ones of the same class.

use super::{Figure, ReportedGenerator};
use crate::{
    picture::Picture,
    report::{
        axes::{NORMAL, SMALL},
        scene::{Anchor, DOUBLE, Scene, Shape, Text},
    },
    vocabulary::MASK_CLASSES,
};

/// Class indices as distinct grey levels.
fn shown(mask: &Picture) -> Picture {
    let step = 255 / (MASK_CLASSES as u8 - 1);
    Picture { pixels: mask.pixels.iter().map(|class| class.saturating_mul(step)).collect(), ..mask.clone() }
}

/// None without pictures.
pub(super) fn figure(generator: &ReportedGenerator) -> Option<Figure> {
    let rows = &generator.samples;
    let real = rows.iter().map(|row| row.real.len()).max()?;
    let synthetic = rows.iter().map(|row| row.synthetic.len()).max()?;
    let masked = rows.iter().flat_map(|row| &row.synthetic).any(|s| s.control.is_some());
    let per_image = if masked { 2 } else { 1 };
    let cells = real + synthetic * per_image;
    if synthetic == 0 {
        return None;
    }
    let (left, gap, split, head) = (16.0, 3.0, 12.0, 16.0);
    let side = ((DOUBLE - left - split - gap * cells as f64) / cells as f64).min(84.0);
    let mut scene = Scene::new(DOUBLE, head + rows.len() as f64 * (side + gap));
    let at = |cell: usize| left + cell as f64 * (side + gap) + if cell >= real { split } else { 0.0 };
    let made = if masked { "Control mask, synthetic image" } else { "Synthetic" };
    for (first, name) in [(0, "Real"), (real, made)] {
        scene.add(Text::new((at(first), head - 5.0), name, NORMAL, Anchor::Start).bold());
    }
    for (i, row) in rows.iter().enumerate() {
        let top = head + i as f64 * (side + gap);
        let class = Text::new((left - 6.0, top + side / 2.0), row.class.as_str(), SMALL, Anchor::Middle);
        scene.add(class.upright());
        let mut draw = |cell: usize, picture: Picture| {
            scene.shapes.push(Shape::Picture { picture, place: (at(cell), top, side, side) });
        };
        row.real.iter().enumerate().for_each(|(cell, picture)| draw(cell, picture.clone()));
        for (j, made) in row.synthetic.iter().enumerate() {
            let cell = real + j * per_image;
            if let Some(mask) = &made.control {
                draw(cell, shown(mask));
            }
            draw(cell + per_image - 1, made.image.clone());
        }
    }
    let size = rows.iter().flat_map(|row| &row.synthetic).map(|s| &s.image).next()?;
    let mut caption = format!(
        "The first images of each class in the order of sampling, not picked by their looks ({} x {} pixels).",
        size.width, size.height
    );
    for (what, words) in [("", &generator.lineage), ("Sampling: ", &generator.sampling)] {
        if !words.is_empty() {
            caption += &format!(" {what}{words}.");
        }
    }
    Some(Figure {
        name: format!("generators_samples_{}", generator.name),
        title: format!("Generators: images of {} ({})", generator.name, generator.mode),
        caption,
        scene,
        narrow: None,
        head: None,
    })
}

/// The synthetic images that are nearest to training images, above these. None without pictures.
pub(super) fn nearest(generator: &ReportedGenerator) -> Option<Figure> {
    let pairs = &generator.nearest;
    let first = pairs.first()?;
    let (left, gap, under) = (54.0, 3.0, 12.0);
    let side = ((DOUBLE - left - gap * pairs.len() as f64) / pairs.len() as f64).min(84.0);
    let mut scene = Scene::new(DOUBLE, 2.0 * (side + gap) + under);
    for (i, name) in ["Synthetic", "Training"].into_iter().enumerate() {
        let middle = i as f64 * (side + gap) + side / 2.0 + 0.36 * NORMAL;
        scene.add(Text::new((0.0, middle), name, NORMAL, Anchor::Start).bold());
    }
    for (i, pair) in pairs.iter().enumerate() {
        let x = left + i as f64 * (side + gap);
        for (row, picture) in [&pair.synthetic, &pair.training].into_iter().enumerate() {
            let place = (x, row as f64 * (side + gap), side, side);
            scene.shapes.push(Shape::Picture { picture: picture.clone(), place });
        }
        let words = crate::aggregate::number(pair.distance, 3);
        scene.add(Text::new((x + side / 2.0, 2.0 * (side + gap) + 8.0), words, SMALL, Anchor::Middle));
    }
    Some(Figure {
        name: format!("generators_nearest_{}", generator.name),
        title: format!("Generators: the most likely copies among the images of {}", generator.name),
        caption: format!(
            "Of {} synthetic images, those whose features are nearest to a training image, with that training image below and the distance between them ({} x {} pixels). A copy would show the same patient.",
            generator.images, first.synthetic.width, first.synthetic.height
        ),
        scene,
        narrow: None,
        head: None,
    })
}
