//! Real images beside synthetic ones of the same class.

use super::{Figure, Generator};
use crate::{
    manifest::CLASSES,
    picture::Picture,
    report::{
        axes::{NORMAL, SMALL},
        scene::{Anchor, DOUBLE, Scene, Shape, Text},
    },
};

/// Class indices as grey levels that can be told apart.
fn shown(mask: &Picture) -> Picture {
    let step = 255 / (CLASSES as u8 - 1);
    Picture { pixels: mask.pixels.iter().map(|class| class.saturating_mul(step)).collect(), ..mask.clone() }
}

/// None without pictures.
pub(super) fn figure(generator: &Generator) -> Option<Figure> {
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
        "The first images of each class in the order in which they were made, none picked by its looks ({} x {} pixels).",
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
    })
}
