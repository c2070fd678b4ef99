//! Draws a [`Scene`] as a PDF page of the scene's size: vectors, and text as text in the embedded font.
//!
//! Nothing in it depends on the time or the machine: the same scene gives the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use ab_glyph::{Font, ScaleFont};
use pdf_writer::{
    Content, Filter, Finish, Name, Pdf, Rect, Ref, Str,
    types::{CidFontType, FontFlags, LineJoinStyle, SystemInfo, UnicodeCmap},
};

use super::scene::{Anchor, BOLD, Point, REGULAR, Rgb, Scene, Shape, Text, em_scale, font, layout};
use crate::error::{Error, Result};

/// PDF gives glyph widths in thousandths of the em.
const EM: f64 = 1000.0;
/// A quarter of a circle as a Bézier curve: the control points' distance in radii.
const ARC: f64 = 0.552_284_75;

/// Whole thousandths of a point are enough, and short.
fn short(value: f64) -> f32 {
    ((value * 1e3).round() / 1e3) as f32
}

fn deflated(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .map_err(|e| Error::failure(format!("cannot write a figure as PDF: {e}")))
}

/// What a page's drawing needs from outside its own stream.
#[derive(Default)]
struct Needs {
    /// Opacity in thousandths.
    alphas: BTreeSet<u32>,
    /// Glyphs by font (bold or not), each with a character that it is for.
    glyphs: [BTreeMap<u16, char>; 2],
    pictures: Vec<(Vec<u8>, usize, usize)>,
}

const FONTS: [(&[u8], &[u8], &[u8]); 2] = [(b"F0", b"Arimo-Regular", REGULAR), (b"F1", b"Arimo-Bold", BOLD)];

/// The PDF file's bytes.
pub(crate) fn pdf(scene: &Scene) -> Result<Vec<u8>> {
    let mut needs = Needs::default();
    let content = deflated(&content(scene, &mut needs)?)?;

    let mut next = 1;
    let mut id = || {
        next += 1;
        Ref::new(next - 1)
    };
    let (catalog, tree, page, stream) = (id(), id(), id(), id());
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids([page]).count(1);
    pdf.stream(stream, &content).filter(Filter::FlateDecode);

    let fonts: Vec<usize> = (0..FONTS.len()).filter(|f| !needs.glyphs[*f].is_empty()).collect();
    let font_ids: Vec<Ref> = fonts.iter().map(|_| id()).collect();
    let picture_ids: Vec<Ref> = needs.pictures.iter().map(|_| id()).collect();
    let mut out = pdf.page(page);
    out.parent(tree).contents(stream).media_box(Rect::new(0.0, 0.0, short(scene.width), short(scene.height)));
    let mut resources = out.resources();
    let mut dictionary = resources.fonts();
    for (f, font) in fonts.iter().zip(&font_ids) {
        dictionary.pair(Name(FONTS[*f].0), *font);
    }
    dictionary.finish();
    let mut dictionary = resources.x_objects();
    for (i, picture) in picture_ids.iter().enumerate() {
        dictionary.pair(Name(format!("P{i}").as_bytes()), *picture);
    }
    dictionary.finish();
    let mut states = resources.ext_g_states();
    for alpha in &needs.alphas {
        let name = format!("A{alpha}");
        let mut state = states.insert(Name(name.as_bytes())).start::<pdf_writer::writers::ExtGraphicsState>();
        state.non_stroking_alpha(*alpha as f32 / 1e3);
    }
    states.finish();
    resources.finish();
    out.finish();

    for ((bytes, width, height), picture) in needs.pictures.iter().zip(picture_ids) {
        let mut image = pdf.image_xobject(picture, bytes);
        image.filter(Filter::FlateDecode);
        image.width(*width as i32).height(*height as i32).bits_per_component(8).interpolate(true);
        image.color_space().device_gray();
    }
    for (f, font) in fonts.into_iter().zip(font_ids) {
        embed(&mut pdf, f, font, &needs.glyphs[f], &mut id)?;
    }
    Ok(pdf.finish())
}

/// Writes a font as PDF wants a TrueType font whose glyphs are called by their number.
fn embed(
    pdf: &mut Pdf,
    which: usize,
    as_ref: Ref,
    glyphs: &BTreeMap<u16, char>,
    id: &mut impl FnMut() -> Ref,
) -> Result<()> {
    let (_, name, file) = FONTS[which];
    let font = font(which == 1).ok_or_else(|| Error::failure("the embedded font cannot be read"))?;
    let scaled = font.as_scaled(em_scale(&font, EM));
    let (descendant, descriptor, data, to_unicode) = (id(), id(), id(), id());
    let identity = SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };
    pdf.type0_font(as_ref)
        .base_font(Name(name))
        .encoding_predefined(Name(b"Identity-H"))
        .descendant_font(descendant)
        .to_unicode(to_unicode);
    let mut cid = pdf.cid_font(descendant);
    cid.subtype(CidFontType::Type2).base_font(Name(name)).system_info(identity);
    cid.font_descriptor(descriptor).cid_to_gid_map_predefined(Name(b"Identity"));
    let mut widths = cid.widths();
    for glyph in glyphs.keys() {
        widths.consecutive(*glyph, [scaled.h_advance(ab_glyph::GlyphId(*glyph))]);
    }
    widths.finish();
    cid.finish();
    let (ascent, descent) = (scaled.ascent(), scaled.descent());
    pdf.font_descriptor(descriptor)
        .name(Name(name))
        .flags(FontFlags::SYMBOLIC)
        .bbox(Rect::new(-500.0, descent, 1500.0, ascent))
        .italic_angle(0.0)
        .ascent(ascent)
        .descent(descent)
        .cap_height(716.0) // Arimo's, as Arial's
        .stem_v(if which == 1 { 140.0 } else { 80.0 })
        .font_file2(data);
    let packed = deflated(file)?;
    pdf.stream(data, &packed).filter(Filter::FlateDecode).pair(Name(b"Length1"), file.len() as i32);
    let mut map = UnicodeCmap::<u16>::new(Name(b"Characters"), identity);
    glyphs.iter().for_each(|(glyph, character)| map.pair(*glyph, *character));
    pdf.cmap(to_unicode, &map.finish());
    Ok(())
}

/// The drawing itself, in the scene's coordinates (turned over once at the start).
fn content(scene: &Scene, needs: &mut Needs) -> Result<Vec<u8>> {
    let mut out = Content::new();
    out.transform([1.0, 0.0, 0.0, -1.0, 0.0, short(scene.height)]);
    out.set_line_join(LineJoinStyle::RoundJoin);
    for shape in &scene.shapes {
        match shape {
            Shape::Line { points, color, width, dash } => {
                let [r, g, b] = channels(*color);
                out.set_stroke_rgb(r, g, b);
                out.set_line_width(short(*width)).set_dash_pattern(dash.iter().map(|d| short(*d)), 0.0);
                path(&mut out, points);
                out.stroke();
            }
            Shape::Polygon { points, color, alpha } => {
                let thousandths = (alpha * 1e3).round() as u32;
                out.save_state();
                if thousandths < 1000 {
                    needs.alphas.insert(thousandths);
                    out.set_parameters(Name(format!("A{thousandths}").as_bytes()));
                }
                fill(&mut out, *color);
                path(&mut out, points);
                out.close_path().fill_nonzero().restore_state();
            }
            Shape::Circle { center: (x, y), radius, color } => {
                fill(&mut out, *color);
                circle(&mut out, *x, *y, *radius);
            }
            Shape::Text(text) => show(&mut out, text, needs),
            Shape::Picture { picture, place: (x, y, width, height) } => {
                let name = format!("P{}", needs.pictures.len());
                needs.pictures.push((deflated(&picture.pixels)?, picture.width, picture.height));
                out.save_state();
                // A picture fills the unit square, upwards.
                out.transform([short(*width), 0.0, 0.0, short(-height), short(*x), short(y + height)]);
                out.x_object(Name(name.as_bytes())).restore_state();
            }
        }
    }
    Ok(out.finish().into_vec())
}

fn channels(color: Rgb) -> [f32; 3] {
    [color.0, color.1, color.2].map(|v| short(f64::from(v) / 255.0))
}

fn fill(out: &mut Content, color: Rgb) {
    let [r, g, b] = channels(color);
    out.set_fill_rgb(r, g, b);
}

fn path(out: &mut Content, points: &[Point]) {
    for (i, (x, y)) in points.iter().map(|p| (short(p.0), short(p.1))).enumerate() {
        if i == 0 {
            out.move_to(x, y)
        } else {
            out.line_to(x, y)
        };
    }
}

fn circle(out: &mut Content, x: f64, y: f64, r: f64) {
    out.move_to(short(x + r), short(y));
    for (from, to) in [
        ((1.0, 0.0), (0.0, 1.0)),
        ((0.0, 1.0), (-1.0, 0.0)),
        ((-1.0, 0.0), (0.0, -1.0)),
        ((0.0, -1.0), (1.0, 0.0)),
    ] {
        let at = |a: f64, b: f64| (short(x + r * a), short(y + r * b));
        let (first, second) =
            (at(from.0 + ARC * to.0, from.1 + ARC * to.1), at(to.0 + ARC * from.0, to.1 + ARC * from.1));
        let end = at(to.0, to.1);
        out.cubic_to(first.0, first.1, second.0, second.1, end.0, end.1);
    }
    out.fill_nonzero();
}

/// A line of text, glyph by glyph where the layout puts them (kerning).
fn show(out: &mut Content, text: &Text, needs: &mut Needs) {
    let which = usize::from(text.bold);
    let Some(font) = font(text.bold) else { return };
    let scaled = font.as_scaled(em_scale(&font, EM));
    let (glyphs, width) = layout(&text.text, EM, text.bold);
    let shift = -width / EM
        * text.size
        * match text.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => 0.5,
            Anchor::End => 1.0,
        };
    let (x, y) = text.at;
    fill(out, text.color);
    out.begin_text().set_font(Name(FONTS[which].0), short(text.size));
    // The page is upside down, so letters are turned over again; upright ones read towards the top.
    out.set_text_matrix(match text.upright {
        false => [1.0, 0.0, 0.0, -1.0, short(x + shift), short(y)],
        true => [0.0, -1.0, -1.0, 0.0, short(x), short(y - shift)],
    });
    let mut positioned = out.show_positioned();
    let mut items = positioned.items();
    let mut pen = 0.0;
    for (glyph, character) in glyphs.iter().zip(text.text.chars()) {
        let back = pen - glyph.position.x;
        if back.abs() > 0.01 {
            items.adjust(short(f64::from(back)));
        }
        items.show(Str(&glyph.id.0.to_be_bytes()));
        pen = glyph.position.x + scaled.h_advance(glyph.id);
        needs.glyphs[which].entry(glyph.id.0).or_insert(character);
    }
    items.finish();
    positioned.finish();
    out.end_text();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Picture;

    #[test]
    fn a_page_of_the_scenes_size_with_its_fonts_and_pictures() {
        let mut scene = Scene::new(240.0, 72.0);
        scene.line(vec![(0.0, 0.0), (10.0, 10.0)], (1, 2, 3), 1.0, &[2.0, 1.0]);
        scene.rect((1.0, 1.0), (5.0, 5.0), (0, 114, 178), 0.18);
        scene.circle((9.0, 9.0), 2.0, (0, 0, 0));
        scene.add(Text::new((10.0, 20.0), "Dice", 8.0, Anchor::End).bold().upright());
        let picture = Picture { pixels: vec![7; 6], ..Picture::new(3, 2) };
        scene.shapes.push(Shape::Picture { picture, place: (0.0, 0.0, 30.0, 20.0) });
        let bytes = pdf(&scene).unwrap();
        assert_eq!(bytes, pdf(&scene).unwrap());
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("%PDF-1.") && text.contains("/MediaBox [0 0 240 72]"));
        assert!(text.contains("/Arimo-Bold") && !text.contains("/Arimo-Regular"), "only what is used");
        assert!(text.contains("/ca 0.18") && text.contains("/Width 3"));
        assert!(!text.contains("CreationDate"));
    }

    #[test]
    fn glyphs_are_those_of_the_layout() {
        let (mut needs, mut scene) = (Needs::default(), Scene::new(100.0, 50.0));
        scene.text((10.0, 20.0), "AV−é", 8.0, Anchor::Start);
        let drawn = content(&scene, &mut needs).unwrap();
        let drawn = String::from_utf8_lossy(&drawn);
        assert!(drawn.contains("1 0 0 -1 10 20 Tm"), "{drawn}");
        assert_eq!(needs.glyphs[0].len(), 4);
        assert!(needs.glyphs[0].values().any(|c| *c == '−') && needs.glyphs[1].is_empty());
    }
}
