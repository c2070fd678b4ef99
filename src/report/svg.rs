//! Writes a [`Scene`] as SVG: text as text, pictures as `data:` addresses, whole numbers for coordinates.
//!
//! Shapes keep their order, neighbours of one style share a path, and texts come last, in groups of one style. Each text
//! has the width that the layout measured, so that a viewer with another font moves nothing.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    picture_data::{Grey, PictureFile},
    scene::{Anchor, Point, Rgb, Scene, Shape, Text, text_width},
};
use crate::error::Result;

/// Units per point: a unit is as small as anything that is drawn.
const UNITS: f64 = 20.0;

/// Left, top, width, height.
type Place = (f64, f64, f64, f64);

/// Shorter texts are placed well by any font.
const LETTERS: usize = 4;

/// The viewer's fonts of the widths that the layout measured.
const FONTS: &str = "Arimo,'Liberation Sans',Arial,Helvetica,sans-serif";

/// The SVG document, with its size in millimetres.
pub(crate) fn svg(scene: &Scene) -> Result<String> {
    let mm = |points: f64| (points / 72.0 * 25.4 * 100.0).round() / 100.0;
    let (width, height) = (whole(scene.width), whole(scene.height));
    let mut out = format!(
        "<svg width=\"{}mm\" height=\"{}mm\" viewBox=\"0 0 {width} {height}\" xmlns=\"http://www.w3.org/2000/svg\" font-family=\"{FONTS}\" fill=\"none\" stroke-linejoin=\"round\">\n<path d=\"M0 0h{width}v{height}H0z\" fill=\"#fff\"/>\n",
        mm(scene.width),
        mm(scene.height)
    );
    shapes(&mut out, scene)?;
    texts(&mut out, scene);
    out += "</svg>\n";
    Ok(out)
}

fn whole(points: f64) -> i64 {
    (points * UNITS).round() as i64
}

/// `#222`, `#0072b2`.
fn hex(color: Rgb) -> String {
    let parts = [color.0, color.1, color.2];
    match parts.iter().all(|part| part >> 4 == part & 15) {
        true => format!("#{:x}{:x}{:x}", parts[0] & 15, parts[1] & 15, parts[2] & 15),
        false => format!("#{:02x}{:02x}{:02x}", parts[0], parts[1], parts[2]),
    }
}

/// Adds a line to a path: the first point as it is, the others as steps. Steps of no length are left out.
fn trace(path: &mut String, points: &[Point]) {
    let at = |point: &Point| (whole(point.0), whole(point.1));
    let Some(first) = points.first().map(at) else { return };
    let _ = write!(path, "M{} {}", first.0, first.1);
    let (mut from, mut command) = (first, ' ');
    for to in points[1..].iter().map(at) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        from = to;
        let (next, numbers): (char, &[i64]) = match (dx, dy) {
            (0, 0) => continue,
            (_, 0) => ('h', &[dx]),
            (0, _) => ('v', &[dy]),
            _ => ('l', &[dx, dy]),
        };
        let is_new = next != command;
        if is_new {
            path.push(next);
            command = next;
        }
        for (i, number) in numbers.iter().enumerate() {
            if *number >= 0 && !(is_new && i == 0) {
                path.push(' ');
            }
            let _ = write!(path, "{number}");
        }
    }
    // A step of no length makes a point.
    if command == ' ' {
        path.push_str("h0");
    }
}

fn shapes(out: &mut String, scene: &Scene) -> Result<()> {
    // Pictures that are there already, with their names and places.
    let mut drawn: Vec<(&Grey, String, Place)> = Vec::new();
    let shapes: Vec<&Shape> = scene.shapes.iter().filter(|shape| !matches!(shape, Shape::Text(_))).collect();
    for group in shapes.chunk_by(|a, b| is_alike(a, b)) {
        match group[0] {
            Shape::Line { color, width, dash, .. } => {
                let mut path = String::new();
                for shape in group {
                    if let Shape::Line { points, .. } = shape {
                        trace(&mut path, points);
                    }
                }
                let dash: Vec<String> = dash.iter().map(|length| whole(*length).to_string()).collect();
                let dash = match dash.is_empty() {
                    true => String::new(),
                    false => format!(" stroke-dasharray=\"{}\"", dash.join(" ")),
                };
                let _ = writeln!(
                    out,
                    "<path d=\"{path}\" stroke=\"{}\" stroke-width=\"{}\"{dash}/>",
                    hex(*color),
                    whole(*width).max(1)
                );
            }
            Shape::Polygon { points, color, alpha } => {
                let mut path = String::new();
                trace(&mut path, points);
                let alpha = if *alpha < 1.0 { format!(" fill-opacity=\"{alpha}\"") } else { String::new() };
                let _ = writeln!(out, "<path d=\"{path}z\" fill=\"{}\"{alpha}/>", hex(*color));
            }
            Shape::Circle { color, radius, .. } => {
                // Lines of no length with round ends.
                let mut path = String::new();
                for shape in group {
                    if let Shape::Circle { center, .. } = shape {
                        trace(&mut path, &[*center]);
                    }
                }
                let _ = writeln!(
                    out,
                    "<path d=\"{path}\" stroke=\"{}\" stroke-width=\"{}\" stroke-linecap=\"round\"/>",
                    hex(*color),
                    whole(2.0 * radius)
                );
            }
            Shape::Picture { picture, place } => {
                let (x, y, width, height) = *place;
                let same = |other: &&(&Grey, String, Place)| {
                    other.0 == picture && (other.2.2, other.2.3) == (width, height)
                };
                if let Some((_, name, first)) = drawn.iter().find(same) {
                    let (dx, dy) = (whole(x) - whole(first.0), whole(y) - whole(first.1));
                    let _ = writeln!(out, "<use href=\"#{name}\" x=\"{dx}\" y=\"{dy}\"/>");
                    continue;
                }
                let (kind, bytes) = match PictureFile::of(picture)? {
                    PictureFile::Png(bytes) => ("png", bytes),
                    PictureFile::Jpeg(bytes) => ("jpeg", bytes),
                };
                // By its contents and size: several drawings may stand in one page.
                let key = format!("{width}x{height}:{}", blake3::hash(&bytes));
                let name = format!("p{}", &blake3::hash(key.as_bytes()).to_hex()[..10]);
                let _ = writeln!(
                    out,
                    "<image id=\"{name}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" href=\"data:image/{kind};base64,{}\"/>",
                    whole(x),
                    whole(y),
                    whole(width),
                    whole(height),
                    STANDARD.encode(&bytes)
                );
                drawn.push((picture, name, *place));
            }
            Shape::Text(_) => {}
        }
    }
    Ok(())
}

/// Whether two neighbours can share an element. Polygons cannot: where two of one path overlap, they might cancel out.
fn is_alike(a: &Shape, b: &Shape) -> bool {
    match (a, b) {
        (
            Shape::Line { color, width, dash, .. },
            Shape::Line { color: other_color, width: other_width, dash: other_dash, .. },
        ) => color == other_color && width == other_width && dash == other_dash,
        (
            Shape::Circle { color, radius, .. },
            Shape::Circle { color: other_color, radius: other_radius, .. },
        ) => color == other_color && radius == other_radius,
        _ => false,
    }
}

/// What texts of a group have in common.
fn style(text: &Text) -> String {
    let anchor = match text.anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let weight = if text.bold { " font-weight=\"700\"" } else { "" };
    format!("fill=\"{}\" font-size=\"{}\"{weight}{anchor}", hex(text.color), whole(text.size))
}

fn texts(out: &mut String, scene: &Scene) {
    let mut groups: Vec<(String, String)> = Vec::new();
    for shape in &scene.shapes {
        let Shape::Text(text) = shape else { continue };
        let style = style(text);
        let at = groups.iter().position(|group| group.0 == style).unwrap_or_else(|| {
            groups.push((style, String::new()));
            groups.len() - 1
        });
        element(&mut groups[at].1, text);
    }
    for (style, texts) in groups {
        let _ = write!(out, "<g {style}>\n{texts}</g>\n");
    }
}

fn element(out: &mut String, text: &Text) {
    let (x, y) = (whole(text.at.0), whole(text.at.1));
    let turn = if text.upright { format!(" transform=\"rotate(-90 {x} {y})\"") } else { String::new() };
    let length = match text.text.chars().count() >= LETTERS {
        true => format!(" textLength=\"{}\"", whole(text_width(&text.text, text.size, text.bold))),
        false => String::new(),
    };
    let words = text.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let words = words.replace('"', "&quot;").replace('\'', "&#39;");
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\"{turn}{length}>{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_the_size_is_in_millimetres() {
        let mut scene = Scene::new(252.0, 72.0);
        scene.text((10.0, 20.0), "<real> & 'more'", 8.0, Anchor::Start);
        let svg = svg(&scene).unwrap();
        assert!(
            svg.starts_with("<svg width=\"88.9mm\" height=\"25.4mm\" viewBox=\"0 0 5040 1440\""),
            "{svg}"
        );
        assert!(svg.contains("&lt;real&gt; &amp;") && !svg.contains("<real>"), "{svg}");
        assert!(svg.contains("font-size=\"160\"") && svg.contains("textLength=\""), "{svg}");
    }

    #[test]
    fn a_picture_that_is_shown_twice_is_there_once() {
        let mut scene = Scene::new(100.0, 100.0);
        let picture = Grey { pixels: vec![7; 6], ..Grey::new(3, 2) };
        for x in [0.0, 40.0] {
            let place = (x, 0.0, 30.0, 20.0);
            scene.shapes.push(Shape::Picture { picture: picture.clone(), place });
        }
        let svg = svg(&scene).unwrap();
        assert_eq!((svg.matches("<image").count(), svg.matches("<use").count()), (1, 1), "{svg}");
        assert!(svg.contains("x=\"800\" y=\"0\"/>"), "{svg}");
    }

    #[test]
    fn neighbours_share_a_path_and_dashes_are_an_attribute() {
        let mut scene = Scene::new(100.0, 100.0);
        let dash: &[f64] = &[5.0, 2.0];
        scene.line(vec![(0.0, 0.0), (1.0, 0.0), (1.0, 2.0), (3.0, 1.0)], (0, 114, 178), 0.5, dash);
        scene.text((1.0, 1.0), "0", 7.0, Anchor::End);
        scene.line(vec![(0.0, 5.0), (2.0, 3.0), (3.0, 5.0)], (0, 114, 178), 0.5, dash);
        scene.circle((1.0, 1.0), 1.0, (34, 34, 34));
        scene.rect((0.0, 0.0), (2.0, 1.0), (255, 255, 255), 0.35);
        let svg = svg(&scene).unwrap();
        let path = "<path d=\"M0 0h20v40l40-20M0 100l40-40 20 40\" stroke=\"#0072b2\" stroke-width=\"10\" stroke-dasharray=\"100 40\"/>";
        assert!(svg.contains(path), "{svg}");
        let point = "<path d=\"M20 20h0\" stroke=\"#222\" stroke-width=\"40\" stroke-linecap=\"round\"/>";
        assert!(svg.contains(point), "{svg}");
        assert!(svg.contains("<path d=\"M0 0h40v20h-40z\" fill=\"#fff\" fill-opacity=\"0.35\"/>"), "{svg}");
        assert!(svg.find("linecap") < svg.find("<text"), "texts come last: {svg}");
    }
}
