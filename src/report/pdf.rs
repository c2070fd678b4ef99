//! Draws a [`Scene`] as a PDF page of the scene's size: vectors, and text as text in the embedded font.
//!
//! Nothing in it depends on the time or the machine: the same scene gives the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use ab_glyph::{Font, GlyphId, ScaleFont};
use pdf_writer::{
    Content, Filter, Finish, Name, Pdf, Rect, Ref, Settings, Str,
    types::{CidFontType, FontFlags, LineCapStyle, LineJoinStyle, SystemInfo, UnicodeCmap},
};
use subsetter::GlyphRemapper;

use super::picture_data::{Grey, PictureFile};
use super::scene::{Anchor, BOLD, Point, REGULAR, Rgb, Scene, Shape, Text, em_scale, font, layout};
use crate::error::{Error, Result};

/// Without spaces that only a human needs.
const COMPACT: Settings = Settings { pretty: false };

/// PDF gives glyph widths in thousandths of the em.
const EM: f64 = 1000.0;
/// Whole hundredths of a point are enough, and short.
fn short(value: f64) -> f32 {
    ((value * 1e2).round() / 1e2) as f32
}

/// Tenths of a point are enough for places: a line is off by no more than the eye sees.
fn place(value: f64) -> f32 {
    ((value * 1e1).round() / 1e1) as f32
}

/// Colours and opacities need one more decimal.
fn fine(value: f64) -> f32 {
    ((value * 1e3).round() / 1e3) as f32
}

fn deflated(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
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
    /// By font (bold or not).
    fonts: [FontNeeds; 2],
    pictures: Vec<Grey>,
}

/// The glyphs of one font.
#[derive(Default)]
struct FontNeeds {
    /// From the font's glyphs to those of the part that is embedded.
    subset: GlyphRemapper,
    /// By its number in the part: the glyph in the font, and a character that it is for.
    glyphs: BTreeMap<u16, (GlyphId, char)>,
}

/// Name in the page, name in the file (six letters mark it as a part of a font), file.
const FONTS: [(&[u8], &[u8], &[u8]); 2] =
    [(b"F0", b"SYNECH+Arimo-Regular", REGULAR), (b"F1", b"SYNECH+Arimo-Bold", BOLD)];

/// The PDF file's bytes.
pub(crate) fn pdf(scene: &Scene) -> Result<Vec<u8>> {
    let mut needs = Needs::default();
    let content = deflated(&content(scene, &mut needs))?;

    let mut next = 1;
    let mut id = || {
        next += 1;
        Ref::new(next - 1)
    };
    let (catalog, tree, page, stream) = (id(), id(), id(), id());
    let mut pdf = Pdf::with_settings(COMPACT);
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids([page]).count(1);
    pdf.stream(stream, &content).filter(Filter::FlateDecode);

    let fonts: Vec<usize> = (0..FONTS.len()).filter(|f| !needs.fonts[*f].glyphs.is_empty()).collect();
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

    for (picture, id) in needs.pictures.iter().zip(picture_ids) {
        let (bytes, filter) = match PictureFile::of(picture)? {
            PictureFile::Png(_) => (deflated(&picture.pixels)?, Filter::FlateDecode),
            PictureFile::Jpeg(bytes) => (bytes, Filter::DctDecode),
        };
        let mut image = pdf.image_xobject(id, &bytes);
        image.filter(filter);
        let (width, height) = (picture.width as i32, picture.height as i32);
        image.width(width).height(height).bits_per_component(8).interpolate(true);
        image.color_space().device_gray();
    }
    for (f, font) in fonts.into_iter().zip(font_ids) {
        embed(&mut pdf, f, font, &needs.fonts[f], &mut id)?;
    }
    Ok(pdf.finish())
}

/// Writes the needed part of a TrueType font, whose glyphs are called by their number.
fn embed(
    pdf: &mut Pdf,
    which: usize,
    as_ref: Ref,
    needs: &FontNeeds,
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
    let advances = needs.glyphs.values().map(|(glyph, _)| scaled.h_advance(*glyph).round());
    // The numbers follow each other: 0 is the font's sign for an unknown character.
    widths.consecutive(1, advances);
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
    let part = subsetter::subset(file, 0, &needs.subset)
        .map_err(|e| Error::failure(format!("cannot embed a font in a figure: {e}")))?;
    let packed = deflated(&part)?;
    pdf.stream(data, &packed).filter(Filter::FlateDecode).pair(Name(b"Length1"), part.len() as i32);
    let mut map = UnicodeCmap::<u16>::new(Name(b"Characters"), identity);
    needs.glyphs.iter().for_each(|(number, (_, character))| map.pair(*number, *character));
    let map = deflated(&map.finish())?;
    pdf.cmap(to_unicode, &map).filter(Filter::FlateDecode);
    Ok(())
}

/// The drawing itself, in the scene's coordinates (turned over once at the start).
fn content(scene: &Scene, needs: &mut Needs) -> Vec<u8> {
    let mut out = Content::with_settings(COMPACT);
    out.transform([1.0, 0.0, 0.0, -1.0, 0.0, short(scene.height)]);
    out.set_line_join(LineJoinStyle::RoundJoin);
    let mut pen = Pen::default();
    for shape in &scene.shapes {
        match shape {
            Shape::Line { points, color, width, dash } => {
                pen.stroke(&mut out, *color, *width, dash);
                path(&mut out, points);
                out.stroke();
            }
            Shape::Polygon { points, color, alpha } => {
                let thousandths = (alpha * 1e3).round() as u32;
                let is_clear = thousandths < 1000;
                pen.fill(&mut out, *color);
                if is_clear {
                    needs.alphas.insert(thousandths);
                    out.save_state();
                    out.set_parameters(Name(format!("A{thousandths}").as_bytes()));
                }
                path(&mut out, points);
                out.close_path().fill_nonzero();
                if is_clear {
                    out.restore_state();
                }
            }
            Shape::Circle { center: (x, y), radius, color } => {
                // A line of no length with round ends.
                pen.dot(&mut out, *color, *radius);
                out.move_to(place(*x), place(*y)).line_to(place(*x), place(*y)).stroke();
            }
            Shape::Text(text) => {
                pen.fill(&mut out, text.color);
                show(&mut out, text, needs);
            }
            Shape::Picture { picture, place: (x, y, width, height) } => {
                let at = needs.pictures.iter().position(|other| other == picture).unwrap_or_else(|| {
                    needs.pictures.push(picture.clone());
                    needs.pictures.len() - 1
                });
                let name = format!("P{at}");
                out.save_state();
                // A picture fills the unit square, upwards.
                out.transform([short(*width), 0.0, 0.0, short(-height), short(*x), short(y + height)]);
                out.x_object(Name(name.as_bytes())).restore_state();
            }
        }
    }
    out.finish().into_vec()
}

fn channels(color: Rgb) -> [f32; 3] {
    [color.0, color.1, color.2].map(|v| fine(f64::from(v) / 255.0))
}

/// Colour, width, dashes, and whether the ends are round.
type LineStyle = (Rgb, f64, &'static [f64], bool);

/// The style that was set last: it holds until another one is set.
#[derive(Default)]
struct Pen {
    line: Option<LineStyle>,
    fill: Option<Rgb>,
}

impl Pen {
    fn stroke(&mut self, out: &mut Content, color: Rgb, width: f64, dash: &'static [f64]) {
        self.line(out, (color, width, dash, false));
    }

    fn dot(&mut self, out: &mut Content, color: Rgb, radius: f64) {
        self.line(out, (color, 2.0 * radius, &[], true));
    }

    /// Sets what differs from the last line.
    fn line(&mut self, out: &mut Content, line: LineStyle) {
        let before = self.line.replace(line);
        let is_new = |same: fn(&LineStyle, &LineStyle) -> bool| {
            before.as_ref().is_none_or(|before| !same(before, &line))
        };
        if is_new(|a, b| a.0 == b.0) {
            let [r, g, b] = channels(line.0);
            out.set_stroke_rgb(r, g, b);
        }
        if is_new(|a, b| a.1 == b.1) {
            out.set_line_width(short(line.1));
        }
        if is_new(|a, b| a.2 == b.2) {
            out.set_dash_pattern(line.2.iter().map(|d| short(*d)), 0.0);
        }
        if is_new(|a, b| a.3 == b.3) {
            out.set_line_cap(if line.3 { LineCapStyle::RoundCap } else { LineCapStyle::ButtCap });
        }
    }

    fn fill(&mut self, out: &mut Content, color: Rgb) {
        if self.fill.replace(color) != Some(color) {
            let [r, g, b] = channels(color);
            out.set_fill_rgb(r, g, b);
        }
    }
}

fn path(out: &mut Content, points: &[Point]) {
    for (i, (x, y)) in points.iter().map(|p| (place(p.0), place(p.1))).enumerate() {
        if i == 0 {
            out.move_to(x, y)
        } else {
            out.line_to(x, y)
        };
    }
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
    out.begin_text().set_font(Name(FONTS[which].0), short(text.size));
    // The page is upside down, so letters are turned over again; upright ones read towards the top.
    out.set_text_matrix(match text.upright {
        false => [1.0, 0.0, 0.0, -1.0, short(x + shift), short(y)],
        true => [0.0, -1.0, -1.0, 0.0, short(x), short(y - shift)],
    });
    let mut positioned = out.show_positioned();
    let mut items = positioned.items();
    // Where the viewer's pen is, which follows the rounded widths; glyphs that need no correction are one string.
    let (mut pen, mut run) = (0.0, Vec::new());
    for (glyph, character) in glyphs.iter().zip(text.text.chars()) {
        let back = pen - glyph.position.x;
        if back.abs() > 0.6 {
            if !run.is_empty() {
                items.show(Str(&std::mem::take(&mut run)));
            }
            items.adjust(back.round());
            pen -= back.round();
        }
        let number = needs.fonts[which].subset.remap(glyph.id.0);
        run.extend(number.to_be_bytes());
        pen += scaled.h_advance(glyph.id).round();
        needs.fonts[which].glyphs.entry(number).or_insert((glyph.id, character));
    }
    items.show(Str(&run));
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
        assert!(text.starts_with("%PDF-1.") && text.contains("/MediaBox[0 0 240 72]"));
        assert!(text.contains("+Arimo-Bold") && !text.contains("Arimo-Regular"), "only what is used");
        assert!(text.contains("/ca 0.18") && text.contains("/Width 3"));
        assert!(!text.contains("CreationDate"));
    }

    #[test]
    fn glyphs_are_those_of_the_layout() {
        let (mut needs, mut scene) = (Needs::default(), Scene::new(100.0, 50.0));
        scene.text((10.0, 20.0), "AV−é", 8.0, Anchor::Start);
        let drawn = content(&scene, &mut needs);
        let drawn = String::from_utf8_lossy(&drawn);
        assert!(drawn.contains("1 0 0 -1 10 20 Tm"), "{drawn}");
        let [regular, bold] = &needs.fonts;
        assert_eq!(regular.glyphs.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(regular.glyphs.values().any(|(_, c)| *c == '−') && bold.glyphs.is_empty());
    }

    #[test]
    fn a_page_holds_no_more_of_a_font_than_it_shows() {
        let mut scene = Scene::new(240.0, 72.0);
        scene.text((10.0, 20.0), "Difference in mean Dice", 8.0, Anchor::Start);
        assert!(pdf(&scene).unwrap().len() < 6_000, "{}", pdf(&scene).unwrap().len());
    }
}
