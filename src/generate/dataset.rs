//! A data set of synthetic images: exactly as many of each view and phase as the settings ask for, with the mask,
//! prompt, source and seed of each in the manifest. Images of a killed run are kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rand::seq::SliceRandom;
use tch::{Device, Kind, Tensor};

use super::sample::write_png;
use crate::{
    augment::{self, AugmentRange, HALF},
    error::{AtPath, Error, Result},
    experiment::{Generator, GeneratorSampling},
    manifest::{Manifest, Row},
    picture::Picture,
    pipeline::{
        Pipeline, PipelineSource, Request, inpaint::KnownPart, noise::ImageNoise, space::mask_to_control,
    },
    progress::Progress,
    prompt, random,
    samples::{class_folder, class_of},
    sector::{self, IN_SECTOR},
    vocabulary::{KeptPart, Label, Mode, Phase, Split, View},
};

/// What a data set is made from.
pub struct DatasetInputs<'a> {
    pub settings: &'a Generator,
    /// The generator's name in the manifest.
    pub generator: &'a str,
    /// A pipeline's folder, or one that holds a pipeline for each class (`2ch_ed`, …).
    pub pipeline: &'a Path,
    pub controlnet: Option<&'a Path>,
    /// Prepared real images of the generator's size.
    pub real: &'a Manifest,
    /// The patients that may be used: of the arm's training split.
    pub patients: Option<&'a [String]>,
    pub device: Device,
    pub progress: &'a Progress,
    pub label: &'a str,
}

/// An image that has still to be made.
struct PlannedImage<'a> {
    class: usize,
    /// Where prompt and mask come from.
    source: Option<&'a Row>,
    prompt: Option<String>,
    /// With the background inside the source's ultrasound sector marked.
    mask: Option<Picture>,
    /// Inpaint: the source's image, and where it is kept.
    known: Option<(Picture, Vec<bool>)>,
    seed: u64,
}

/// Makes the images and writes `images/`, `masks/`, `sectors/` and the manifest into `to`, an existing, empty
/// folder. Finished images are kept in `work` until all are there.
///
/// # Errors
/// A class without images, more masks asked than there are, a pipeline that does not fit the mode, or
/// what cannot be written.
pub fn dataset(inputs: &DatasetInputs, work: &Path, to: &Path) -> Result<Manifest> {
    let settings = inputs.settings;
    let items = items(inputs)?;
    fs::create_dir_all(work).at_path(work, "cannot make the folder")?;
    let bar = inputs.progress.bar(items.len() as u64, inputs.label, "images");
    let made = |i: usize| work.join(format!("{i:06}.png"));
    // Always the same batches, so that an image is the same however often the work was taken up.
    let batches: Vec<(usize, &[PlannedImage])> = batches(&items, settings.sampling.sampling_batch);
    let mut loaded: Option<(PathBuf, Pipeline)> = None;
    for (first, batch) in batches {
        if (first..first + batch.len()).all(|i| made(i).is_file()) {
            bar.resume_at((first + batch.len()) as u64);
            continue;
        }
        let class = batch[0].class;
        let own = inputs.pipeline.join(class_folder(class));
        let per_class = own.is_dir();
        let folder = if per_class { own } else { inputs.pipeline.to_owned() };
        if loaded.as_ref().is_none_or(|(at, _)| *at != folder) {
            loaded = Some((folder.clone(), load(inputs, &folder)?));
        }
        let Some((_, pipeline)) = &loaded else { continue };
        let images = sample(settings, pipeline, batch, !per_class)?;
        for (i, image) in images.iter().enumerate() {
            let place = made(first + i);
            let partial = place.with_extension("partial");
            write_png(image, &partial)?;
            fs::rename(&partial, &place).at_path(&place, "cannot put the image in its place")?;
        }
        bar.set((first + batch.len()) as u64);
    }
    write(inputs, &items, &made, to)
}

/// Whether there is a class, and a mask where one is needed, for every image that is asked for: to be known
/// before a generator is trained for hours.
///
/// # Errors
/// As [`dataset`].
pub fn check(settings: &Generator, real: &Manifest, patients: Option<&[String]>) -> Result<()> {
    sources(settings, real, patients).map(|_| ())
}

/// The training images of each class, in the order in which they lend their words and masks.
fn sources<'a>(
    settings: &Generator,
    real: &'a Manifest,
    patients: Option<&[String]>,
) -> Result<Vec<Vec<&'a Row>>> {
    let of_class = |(class, name): (usize, &&str)| {
        let mut rows: Vec<&Row> = real
            .of(Split::Train)
            .filter(|row| patients.is_none_or(|p| p.contains(&row.patient)))
            .filter(|row| class_of(row, Label::ViewPhase) == class)
            .collect();
        if rows.is_empty() {
            return Err(Error::input(format!("no training image is of {name}")).at(&real.root).help(
                "every view and phase needs real images: look at the data set with `synecho data check`",
            ));
        }
        rows.shuffle(&mut random::rng(settings.seed, "sources", &[class as u64]));
        if settings.takes_masks() {
            if let Some(row) = rows.iter().find(|row| row.mask.is_none()) {
                return Err(Error::input(format!("{} has no mask", row.name())).at(&real.root).help(
                    "images are made from masks in this mode: use mode = \"text\" or \"unconditional\", or take such images out",
                ));
            }
            let (count, per_mask) = (settings.sampling.per_class_images, settings.sampling.per_mask);
            let needed = count.div_ceil(per_mask);
            if needed > rows.len() {
                return Err(Error::input(format!(
                    "{count} images of {name}, {per_mask} per mask, need {needed} masks: there are {}",
                    rows.len()
                ))
                .help(format!(
                    "raise per_mask to {}, or lower per_class_images to {}",
                    count.div_ceil(rows.len()),
                    rows.len() * per_mask
                )));
            }
        }
        Ok(rows)
    };
    Label::ViewPhase.classes().iter().enumerate().map(of_class).collect()
}

/// Runs of at most `size` images; a class of its own model never shares a batch with another.
fn batches<'a, 'b>(items: &'b [PlannedImage<'a>], size: usize) -> Vec<(usize, &'b [PlannedImage<'a>])> {
    let mut first = 0;
    let mut batches = Vec::new();
    for of_class in items.chunk_by(|a, b| a.class == b.class) {
        for batch in of_class.chunks(size) {
            batches.push((first, batch));
            first += batch.len();
        }
    }
    batches
}

fn items<'a>(inputs: &'a DatasetInputs) -> Result<Vec<PlannedImage<'a>>> {
    let settings = inputs.settings;
    let prompts = &settings.prompts;
    let mut items = Vec::new();
    for (class, rows) in sources(settings, inputs.real, inputs.patients)?.into_iter().enumerate() {
        let per_source = if settings.takes_masks() { settings.sampling.per_mask } else { 1 };
        for i in 0..settings.sampling.per_class_images {
            // Text: every training image lends its words once before one does twice.
            let source = (settings.mode != Mode::Unconditional).then(|| rows[i / per_source % rows.len()]);
            let index = [class as u64, i as u64];
            let prompt = source
                .filter(|_| settings.mode != Mode::Inpaint)
                .map(|row| prompt::of_image(&prompts.prompt, prompts.random_tokens, row));
            let mask = match source.filter(|_| settings.takes_masks()) {
                Some(row) => Some(control_mask(inputs, row, &index)?),
                None => None,
            };
            let known = match (settings.mode, source, &mask) {
                (Mode::Inpaint, Some(row), Some(mask)) => {
                    let image = Picture::read(&inputs.real.image_path(row))?;
                    Some((image, kept(mask, settings.sampling.keep)))
                }
                _ => None,
            };
            for candidate in 0..settings.sampling.candidates as u64 {
                // The first is the image that there would be without others.
                let index = [class as u64, i as u64, candidate];
                let index = if candidate == 0 { &index[..2] } else { &index[..] };
                let seed = random::seed(settings.seed, "image", index);
                let (prompt, mask, known) = (prompt.clone(), mask.clone(), known.clone());
                items.push(PlannedImage { class, source, prompt, mask, known, seed });
            }
        }
    }
    Ok(items)
}

/// The source's mask, moved a little where the settings ask for it, in the sector of its image.
fn control_mask(inputs: &DatasetInputs, row: &Row, index: &[u64]) -> Result<Picture> {
    let file = inputs.real.mask_path(row).ok_or_else(|| Error::failure("a source has no mask"))?;
    let mask = Picture::read_mask(&file)?;
    let image = Picture::read(&inputs.real.image_path(row))?;
    let in_sector = sector::find(&image.pixels, image.width);
    let range = AugmentRange::of(&inputs.settings.augment).filter(|_| inputs.settings.sampling.vary_masks);
    let Some(range) = range else { return Ok(with_sector(mask, &in_sector)) };
    let (width, height) = (mask.width, mask.height);
    let mut rng = random::rng(inputs.settings.seed, "vary mask", index);
    let params = augment::draw(&range, &mut rng, width, height);
    let mut moved = Picture::new(width, height);
    let mut unused = vec![0f32; mask.pixels.len()];
    let masks = Some((&mask.pixels[..], &mut moved.pixels[..]));
    augment::apply(&params, &mask.pixels, masks, (width, height), &HALF, &mut unused)?;
    // The heart moves, the probe does not: what would lie outside the sector cannot be seen.
    moved.pixels.iter_mut().zip(&in_sector).filter(|(_, seen)| !**seen).for_each(|(class, _)| *class = 0);
    Ok(with_sector(moved, &in_sector))
}

/// Where a real image is kept: its structures with a border of a 64th of the width, in which the heart's edge shows; or the
/// sector without its outer fifth, and all of the structures.
fn kept(mask: &Picture, keep: KeptPart) -> Vec<bool> {
    let structures: Vec<bool> = mask.pixels.iter().map(|&class| class != 0 && class != IN_SECTOR).collect();
    let heart = sector::grown(&structures, mask.width, (mask.width / 64).max(1));
    match keep {
        KeptPart::Heart => heart,
        KeptPart::SectorCentre => {
            let outside: Vec<bool> = mask.pixels.iter().map(|&class| class == 0).collect();
            let edge = sector::grown(&outside, mask.width, mask.width / 10);
            heart.iter().zip(edge).map(|(&heart, edge)| heart || !edge).collect()
        }
    }
}

fn with_sector(mut mask: Picture, in_sector: &[bool]) -> Picture {
    let background = mask.pixels.iter_mut().zip(in_sector).filter(|(class, seen)| **class == 0 && **seen);
    background.for_each(|(class, _)| *class = IN_SECTOR);
    mask
}

fn load(inputs: &DatasetInputs, folder: &Path) -> Result<Pipeline> {
    let source =
        PipelineSource { device: inputs.device, ..sampled(inputs.settings, folder, inputs.controlnet) };
    let pipeline = Pipeline::load(&source)?;
    check_mode(pipeline.mode(), inputs.settings.mode, folder).map(|()| pipeline)
}

fn sampled<'a>(settings: &Generator, folder: &'a Path, controlnet: Option<&'a Path>) -> PipelineSource<'a> {
    PipelineSource {
        pipeline: folder,
        controlnet,
        scheduler: Some(settings.sampling.scheduler),
        levels: Some(settings.sampling.noise_levels),
        shift: Some(settings.sampling.shift).filter(|shift| *shift > 0.0),
        variant: None,
        kind: Kind::Float,
        device: Device::Cpu,
    }
}

/// Whether [`dataset`] could load the pipelines of `folder`, as far as configurations and the headers of weights show.
///
/// # Errors
/// A pipeline that is damaged, not supported, or of another mode.
pub fn check_pipelines(settings: &Generator, folder: &Path, controlnet: Option<&Path>) -> Result<()> {
    for folder in pipelines_in(folder) {
        let mode = Pipeline::check(&sampled(settings, &folder, controlnet))?;
        check_mode(mode, settings.mode, &folder)?;
    }
    Ok(())
}

/// A pipeline's folder, or those of all classes for which `folder` has one.
pub fn pipelines_in(folder: &Path) -> Vec<PathBuf> {
    let own = |class: usize| folder.join(class_folder(class));
    let mut folders: Vec<PathBuf> = (0..Label::ViewPhase.classes().len())
        .map(|class| if own(class).is_dir() { own(class) } else { folder.to_owned() })
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

fn check_mode(found: Mode, mode: Mode, folder: &Path) -> Result<()> {
    let wanted = if mode == Mode::Inpaint { Mode::Unconditional } else { mode };
    match found == wanted {
        true => Ok(()),
        false => Err(Error::input(format!("a pipeline of mode {found} where {wanted} is needed"))
            .at(folder)
            .help(format!("set mode = \"{found}\", or name another folder"))),
    }
}

/// Images (1, height, width) in 0..1; `all_classes`: by one model, which gets the class as an input.
fn sample(
    settings: &Generator,
    pipeline: &Pipeline,
    batch: &[PlannedImage],
    all_classes: bool,
) -> Result<Vec<Tensor>> {
    let unconditional = matches!(settings.mode, Mode::Unconditional | Mode::Inpaint);
    let masks: Vec<&Picture> = batch.iter().filter_map(|item| item.mask.as_ref()).collect();
    let control = match masks.first().filter(|_| !unconditional) {
        None => None,
        Some(first) => {
            let (h, w) = (first.height as i64, first.width as i64);
            let classes: Vec<u8> = masks.iter().flat_map(|mask| &mask.pixels).copied().collect();
            Some(mask_to_control(&Tensor::from_slice(&classes).f_view([-1, h, w])?, pipeline.sees_sector()))
        }
    };
    let classes = pipeline.classes();
    let class_labels = match unconditional && all_classes && classes > 0 {
        true => batch.iter().map(|item| item.class as i64).collect(),
        false => Vec::new(),
    };
    let texts = !unconditional;
    let known = known_part(settings, batch)?;
    let side = settings.image_size as i64;
    let request = Request {
        prompts: batch.iter().filter_map(|item| item.prompt.as_deref()).collect(),
        negative_prompt: texts.then_some(settings.sampling.negative_prompt.as_str()),
        guidance: settings.sampling.guidance,
        control: control.as_ref(),
        known: known.as_ref(),
        class_labels,
        size: Some([side, side]),
        steps: settings.sampling.sampling_steps,
        ..Request::default()
    };
    let mut prepared = pipeline.prepare(&request)?;
    let seeds: Vec<u64> = batch.iter().map(|item| item.seed).collect();
    let images = pipeline.sample(&mut prepared, &mut ImageNoise::new(&seeds), None, &|_, _| {})?;
    // Echocardiograms are grey: the mean of colours that a stock model makes.
    let grey = images.f_mean_dim(&[1i64][..], true, Kind::Float)?;
    Ok((0..batch.len() as i64).map(|i| grey.get(i)).collect())
}

/// What is kept of a batch's real images.
fn known_part(settings: &Generator, batch: &[PlannedImage]) -> Result<Option<KnownPart>> {
    let known: Vec<&(Picture, Vec<bool>)> = batch.iter().filter_map(|item| item.known.as_ref()).collect();
    let Some((first, _)) = known.first() else { return Ok(None) };
    let shape = [known.len() as i64, 1, first.height as i64, first.width as i64];
    let pixels: Vec<u8> = known.iter().flat_map(|(image, _)| &image.pixels).copied().collect();
    let kept: Vec<u8> = known.iter().flat_map(|(_, kept)| kept).map(|&kept| u8::from(kept)).collect();
    let tensor = |values: &[u8]| -> Result<Tensor> {
        Ok(Tensor::f_from_slice(values)?.f_view(shape)?.to_kind(Kind::Float))
    };
    Ok(Some(KnownPart {
        images: tensor(&pixels)? / 127.5 - 1.0,
        kept: tensor(&kept)?,
        resample: settings.sampling.resample,
    }))
}

fn write(
    inputs: &DatasetInputs,
    items: &[PlannedImage],
    made: &dyn Fn(usize) -> PathBuf,
    to: &Path,
) -> Result<Manifest> {
    let masked = items.iter().any(|item| item.mask.is_some());
    for part in ["images", "masks", "sectors"].into_iter().filter(|part| masked || *part == "images") {
        fs::create_dir_all(to.join(part)).at_path(to.join(part), "cannot make the folder")?;
    }
    let mut rows = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let mode = crate::results::word(&inputs.settings.mode);
        let mut row = Row {
            split: Some(Split::Train),
            generator: Some(format!("{mode} {}", inputs.generator)),
            prompt: item.prompt.clone(),
            seed: Some(item.seed),
            ..Row::new(
                format!("synthetic-{i:05}"),
                if item.class < 2 { View::TwoChamber } else { View::FourChamber },
                if item.class % 2 == 0 { Phase::Ed } else { Phase::Es },
                PathBuf::new(),
            )
        };
        let name = format!("{}.png", row.name());
        row.image = Path::new("images").join(&name);
        let place = to.join(&row.image);
        fs::copy(made(i), &place).at_path(&place, "cannot copy the image")?;
        if let (Some(mask), Some(source)) = (&item.mask, item.source) {
            row.source_mask = Some(source.name());
            row.mask = Some(Path::new("masks").join(&name));
            let structures = mask.pixels.iter().map(|&class| if class == IN_SECTOR { 0 } else { class });
            Picture { pixels: structures.collect(), ..*mask }.write(&to.join("masks").join(&name))?;
            // White in the sector, for whoever wants to make the image again.
            let sector = mask.pixels.iter().map(|&class| if class > 0 { 255 } else { 0 });
            Picture { pixels: sector.collect(), ..*mask }.write(&to.join("sectors").join(&name))?;
            (row.spacing_x, row.spacing_y) = (source.spacing_x, source.spacing_y);
        }
        rows.push(row);
    }
    let manifest = Manifest { root: to.to_owned(), rows };
    manifest.write()?;
    Ok(manifest)
}

/// Draws sixteen images (four of each class, or all of the `class` that the pipeline knows) as one
/// picture, rows by class: what training looks like on the way.
///
/// # Errors
/// As [`dataset`].
pub fn grid(inputs: &DatasetInputs, class: Option<usize>, file: &Path) -> Result<()> {
    let sampling = &inputs.settings.sampling;
    let few = Generator {
        sampling: GeneratorSampling {
            per_class_images: if class.is_some() { 16 } else { 4 },
            per_mask: sampling.per_mask.max(4),
            candidates: 1,
            sampling_steps: sampling.sampling_steps.min(25),
            ..sampling.clone()
        },
        ..inputs.settings.clone()
    };
    let inputs = DatasetInputs { settings: &few, ..*inputs };
    let items: Vec<PlannedImage> =
        items(&inputs)?.into_iter().filter(|item| class.is_none_or(|class| item.class == class)).collect();
    let pipeline = load(&inputs, inputs.pipeline)?;
    let mut images = Vec::new();
    for (_, batch) in batches(&items, few.sampling.sampling_batch) {
        images.extend(sample(&few, &pipeline, batch, class.is_none())?);
    }
    let rows: Vec<Tensor> = images.chunks(4).map(|row| Tensor::cat(row, 2)).collect();
    write_png(&Tensor::f_cat(&rows, 1)?, file)
}
