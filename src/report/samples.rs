//! The qualitative panel: image, truth and prediction side by side.

use super::{
    Figure, PanelItem, ReportInput,
    axes::{NORMAL, SMALL},
    picture_data::outlines,
    scene::{Anchor, DOUBLE, MUTED, Rgb, Scene, Shape, Text, text_width},
};
use crate::{picture::Picture, vocabulary::Structure};

/// (class, structure, colour, dash): the myocardium first, so that the cavity's line lies on top.
const CLASSES: [(u8, Structure, Rgb, &[f64]); 3] = [
    (2, Structure::Myo, (230, 159, 0), &[4.0, 1.6]),
    (1, Structure::Endo, (86, 180, 233), &[]),
    (3, Structure::La, (240, 228, 66), &[1.6, 1.2]),
];

/// Room for the words under a row.
const UNDER: f64 = 32.0;

/// The side of a picture in the page's strip of examples, in points.
const SIDE: f64 = 72.0;

/// How many synthetic images the strip has room for.
const GENERATORS: usize = 4;

/// Examples for the head of the page, each with its name: a real image, one of each generator, and a segmentation.
pub(crate) fn strip(input: &ReportInput) -> Vec<(String, Scene)> {
    let mut cells = Vec::new();
    let generators = input.generators.iter().filter_map(|g| Some((g, g.samples.first()?)));
    let generators: Vec<_> = generators.filter(|(_, row)| !row.synthetic.is_empty()).collect();
    if let Some(picture) = generators.first().and_then(|(_, row)| row.real.first()) {
        cells.push(("Real".to_owned(), cell(picture, None)));
    }
    for (generator, row) in generators.iter().take(GENERATORS) {
        cells.push((format!("Synthetic: {}", generator.name), cell(&row.synthetic[0].image, None)));
    }
    // The image of median score: neither a good nor a bad example.
    if let Some(item) = input.panel.get(1).or(input.panel.first()) {
        if cells.is_empty() {
            cells.push(("Real".to_owned(), cell(&item.image, None)));
        }
        cells.push(("Test image: truth".to_owned(), cell(&item.image, Some(&item.truth))));
        cells.push(("Test image: prediction".to_owned(), cell(&item.image, Some(&item.prediction))));
    }
    cells
}

fn cell(picture: &Picture, mask: Option<&Picture>) -> Scene {
    let height = SIDE * (picture.height as f64 / picture.width.max(1) as f64).clamp(0.2, 3.0);
    let mut scene = Scene::new(SIDE, height);
    let place = (0.0, 0.0, SIDE, height);
    scene.shapes.push(Shape::Picture { picture: picture.clone(), place });
    if let Some(mask) = mask {
        trace(&mut scene, mask, place);
    }
    scene
}

/// The outlines of a mask's classes over a place (x, y, width, height).
fn trace(scene: &mut Scene, mask: &Picture, (left, top, width, height): (f64, f64, f64, f64)) {
    let (sx, sy) = (width / mask.width.max(1) as f64, height / mask.height.max(1) as f64);
    for (class, _, color, dash) in CLASSES {
        for outline in outlines(mask, class, 2) {
            let points = outline.iter().map(|p| (left + p.0 * sx, top + p.1 * sy)).collect();
            scene.line(points, color, 0.9, dash);
        }
    }
}

/// None without items.
pub(crate) fn figure(items: &[PanelItem]) -> Option<Figure> {
    let first = items.first()?;
    let (gap, margin) = (8.0, 4.0);
    let width = (DOUBLE - 2.0 * margin - 2.0 * gap) / 3.0;
    // Pixels may not be square in millimetres; the panel shows them as the network saw them.
    let height =
        |picture: &Picture| width * (picture.height as f64 / picture.width.max(1) as f64).clamp(0.2, 3.0);
    let head = 30.0;
    let total = head + items.iter().map(|item| height(&item.image) + UNDER).sum::<f64>();
    let mut scene = Scene::new(DOUBLE, total);
    let mut x = margin;
    for (_, structure, color, dash) in [CLASSES[1], CLASSES[0], CLASSES[2]] {
        let name = Structure::label_of(structure.as_str());
        scene.rect((x, 2.0), (24.0, 9.0), (40, 40, 40), 1.0);
        scene.line(vec![(x + 3.0, 6.5), (x + 21.0, 6.5)], color, 1.2, dash);
        scene.text((x + 28.0, 6.5 + 0.36 * NORMAL), name, NORMAL, Anchor::Start);
        x += 28.0 + text_width(name, NORMAL, false) + 14.0;
    }
    for (i, name) in ["Image", "Truth", "Prediction"].into_iter().enumerate() {
        let middle = margin + i as f64 * (width + gap) + width / 2.0;
        scene.add(Text::new((middle, head - 4.0), name, NORMAL, Anchor::Middle).bold());
    }
    let mut top = head;
    for item in items {
        let high = height(&item.image);
        for (i, mask) in [None, Some(&item.truth), Some(&item.prediction)].into_iter().enumerate() {
            let left = margin + i as f64 * (width + gap);
            let place = (left, top, width, high);
            scene.shapes.push(Shape::Picture { picture: item.image.clone(), place });
            if let Some(mask) = mask {
                trace(&mut scene, mask, place);
            }
        }
        let dice: Vec<String> = item
            .dice
            .iter()
            .map(|(structure, value)| {
                format!("{} {}", Structure::label_of(structure), crate::aggregate::number(*value, 3))
            })
            .collect();
        let baseline = top + high + 10.0;
        scene.add(Text::new((margin, baseline), item.caption.as_str(), NORMAL, Anchor::Start).bold());
        let dice = format!("Dice: {}", dice.join(", "));
        scene.add(Text::new((margin, baseline + 10.0), dice, SMALL, Anchor::Start).color(MUTED));
        top += high + UNDER;
    }
    let size = format!("{} x {} pixels", first.image.width, first.image.height);
    Some(Figure {
        name: "segmentation_samples".to_owned(),
        title: "Segmentation: examples".to_owned(),
        caption: format!(
            "Test images with the best, the median and the worst mean Dice, chosen only by that number ({size}). Outlines: truth in the middle, prediction on the right."
        ),
        scene,
        narrow: None,
        head: None,
    })
}
