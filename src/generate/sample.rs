//! `synecho sample`: images from a diffusers folder into a folder of PNG files with a manifest.

use std::{
    fs,
    path::{Path, PathBuf},
};

use image::{DynamicImage, ExtendedColorType, imageops::FilterType};
use serde::Serialize;
use tch::{Kind, Tensor};

use crate::{
    atomic_file::write_atomically,
    error::{AtPath, Error, Result},
    nn::tensor_file::TensorFile,
    picture::{self, Picture},
    pipeline::{Pipeline, PipelineSource, Request, noise::ImageNoise},
    plain_file,
    progress::Progress,
    sector,
    vocabulary::Mode,
};

/// Name of the table in the output folder.
pub const MANIFEST: &str = "manifest.csv";

/// A control image, as it lies on the disk.
#[derive(Debug, Clone)]
pub enum ControlPicture {
    /// A picture, given to the ControlNet as it is.
    Image(PathBuf),
    /// A mask of class indices 0 to 3, given to the networks as grey 0, 85, 170, 255.
    Mask {
        mask: PathBuf,
        /// An echocardiogram whose ultrasound sector is given with it.
        sector: Option<PathBuf>,
    },
}

impl ControlPicture {
    fn file(&self) -> &Path {
        match self {
            Self::Image(file) | Self::Mask { mask: file, .. } => file,
        }
    }

    /// How it is resized: pictures as upstream resizes control images, masks so that no class arises
    /// between two others.
    fn filter(&self) -> FilterType {
        match self {
            Self::Image(_) => FilterType::Lanczos3,
            Self::Mask { .. } => FilterType::Nearest,
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct SampleOptions<'a> {
    pub source: PipelineSource<'a>,
    pub prompt: Option<String>,
    pub negative_prompt: Option<String>,
    /// Upstream's where none is given: 7.5 with a text, else none.
    pub guidance: Option<f64>,
    pub clip_skip: i64,
    pub control: Option<ControlPicture>,
    pub conditioning_scale: f64,
    pub class_label: Option<i64>,
    pub size: Option<[i64; 2]>,
    /// Upstream's number where none is given.
    pub steps: Option<usize>,
    pub eta: f64,
    /// Starting noise: a safetensors file with one tensor (count, channels, height, width).
    pub latents: Option<PathBuf>,
    /// Image i has the seed `seed + i`.
    pub seed: u64,
    pub count: usize,
    pub batch_size: usize,
    pub out: PathBuf,
}

/// One image, and all that is needed to make it again.
#[derive(Debug, Clone, Serialize)]
struct ImageRow {
    image: String,
    seed: u64,
    prompt: Option<String>,
    negative_prompt: Option<String>,
    guidance: Option<f64>,
    scheduler: String,
    steps: usize,
    eta: f64,
    control_image: Option<String>,
    conditioning_scale: Option<f64>,
    class_label: Option<i64>,
    latents: Option<String>,
    pipeline: String,
    controlnet: Option<String>,
    dtype: &'static str,
}

/// Makes the images; gives the number made. The manifest names those that are finished, so that nothing
/// is lost when the program is stopped.
///
/// # Errors
/// The output folder holds something already, a file is missing or damaged, the request does not fit
/// the pipeline.
pub fn sample(options: &SampleOptions, progress: &Progress) -> Result<usize> {
    if options.count == 0 || options.batch_size == 0 {
        return Err(Error::input("no image is asked for").help("give --count and --batch-size from 1 on"));
    }
    let last = options.seed.checked_add(options.count as u64 - 1).filter(|&s| s <= i64::MAX as u64);
    if last.is_none() {
        return Err(Error::input("the seeds grow too large").help("use seeds below 2^63"));
    }
    let out = options.out.as_path();
    check_empty(out)?;
    let latents = options.latents.as_deref().map(read_latents).transpose()?;
    let picture = options.control.as_ref().map(|c| read_control(c, progress)).transpose()?;
    let pipeline = Pipeline::load(&options.source)?;
    check_sector(options, &pipeline)?;
    let control = match (&options.control, picture) {
        (Some(control), Some(picture)) => {
            Some(control_tensor(picture, control.filter(), options.size, pipeline.size_factor())?)
        }
        _ => None,
    };
    let steps = options.steps.unwrap_or_else(|| pipeline.default_steps());
    let text = pipeline.mode() != Mode::Unconditional;
    let guidance = options.guidance.unwrap_or(if text { Request::default().guidance } else { 1.0 });
    let request = Request {
        prompts: options.prompt.as_deref().into_iter().collect(),
        negative_prompt: options.negative_prompt.as_deref(),
        guidance,
        clip_skip: options.clip_skip,
        control: control.as_ref(),
        known: None,
        conditioning_scale: options.conditioning_scale,
        class_labels: options.class_label.into_iter().collect(),
        size: options.size,
        steps,
        eta: options.eta,
    };
    let mut prepared = pipeline.prepare(&request)?;
    pipeline.check_batch(&prepared, options.batch_size.min(options.count))?;
    for end in &prepared.cut {
        progress
            .line(format!("warning: the prompt is too long for the text encoder; it does not see {end:?}"));
    }
    if let Some(latents) = &latents {
        let expected = [&[options.count as i64][..], &prepared.latent_shape].concat();
        if latents.size() != expected {
            return Err(Error::input(format!("latents of {:?}", latents.size()))
                .at(options.latents.as_deref().unwrap_or(out))
                .help(format!("{expected:?} are needed: --count, channels, height, width")));
        }
    }
    fs::create_dir_all(out)
        .at_path(out, "cannot make the folder")
        .map_err(|e| e.help("name a folder where you may write"))?;
    let bar = progress.bar((options.count * steps) as u64, pipeline.mode().to_string(), "steps");
    let mut rows = Vec::new();
    while rows.len() < options.count {
        let first = rows.len();
        let size = options.batch_size.min(options.count - first);
        let seeds: Vec<u64> = (0..size as u64).map(|i| options.seed + first as u64 + i).collect();
        let mut noise = ImageNoise::new(&seeds);
        let given = latents.as_ref().map(|l| l.narrow(0, first as i64, size as i64));
        let images = pipeline.sample(&mut prepared, &mut noise, given.as_ref(), &|done, all| {
            // Some schedulers take a few steps more or fewer than were asked for.
            bar.set((first * steps + size * steps * done / all) as u64);
        })?;
        for (i, &seed) in seeds.iter().enumerate() {
            let name = format!("{:06}.png", first + i);
            write_png(&images.get(i as i64), &out.join(&name))?;
            rows.push(row(name, seed, &request, options, &pipeline));
        }
        write_atomically(&out.join(MANIFEST), &to_csv(&rows)?)?;
    }
    Ok(rows.len())
}

fn row(
    image: String,
    seed: u64,
    request: &Request,
    options: &SampleOptions,
    pipeline: &Pipeline,
) -> ImageRow {
    let shown = |path: &Path| path.display().to_string();
    let text = options.prompt.is_some();
    ImageRow {
        image,
        seed,
        prompt: options.prompt.clone(),
        negative_prompt: text.then(|| options.negative_prompt.clone().unwrap_or_default()),
        guidance: (text || request.guidance > 1.0).then_some(request.guidance),
        scheduler: pipeline.scheduler().to_string(),
        steps: request.steps,
        eta: options.eta,
        control_image: options.control.as_ref().map(|c| shown(c.file())),
        conditioning_scale: options.control.as_ref().map(|_| options.conditioning_scale),
        class_label: options.class_label,
        latents: options.latents.as_deref().map(shown),
        pipeline: shown(options.source.pipeline),
        controlnet: options.source.controlnet.map(shown),
        dtype: match options.source.kind {
            Kind::BFloat16 => "bf16",
            Kind::Half => "f16",
            _ => "f32",
        },
    }
}

fn to_csv(rows: &[ImageRow]) -> Result<Vec<u8>> {
    let fail = |e: csv::Error| Error::failure(format!("cannot write the manifest: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.serialize(row)).map_err(fail)?;
    writer.into_inner().map_err(|e| Error::failure(format!("cannot write the manifest: {e}")))
}

fn check_empty(out: &Path) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    let mut entries = fs::read_dir(out)
        .at_path(out, "cannot look into the output folder")
        .map_err(|e| e.help("name a folder that is empty or does not exist"))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::input("the output folder is not empty")
            .at(out)
            .help("choose another folder: existing files are never overwritten")),
    }
}

/// The one tensor of a file, f32 (images, channels, height, width).
fn read_latents(file: &Path) -> Result<Tensor> {
    let latents = TensorFile::open(file)
        .map_err(|e| e.help("name a safetensors file, or one that torch.save wrote"))?;
    match latents.entries() {
        [only] => Ok(latents.read(only)?.to_kind(Kind::Float)),
        _ => Err(Error::input("more or less than one tensor in the file of latents")
            .at(file)
            .help("save one tensor (images, channels, height, width)")),
    }
}

fn read_control(control: &ControlPicture, progress: &Progress) -> Result<DynamicImage> {
    let file = control.file();
    match control {
        ControlPicture::Mask { sector, .. } => {
            let mask = Picture::read_mask(file)?;
            let in_sector = sector.as_deref().map(|picture| read_sector(picture, &mask)).transpose()?;
            // As `mask_to_control`: blue is the sector, where there is one.
            let pixels = mask.pixels.iter().enumerate().flat_map(|(at, &class)| {
                let grey = class * 85;
                let blue = in_sector.as_ref().map(|seen| u8::from(seen[at] || class > 0) * 255);
                [grey, grey, blue.unwrap_or(grey)]
            });
            image::RgbImage::from_raw(mask.width as u32, mask.height as u32, pixels.collect())
                .map(DynamicImage::ImageRgb8)
                .ok_or_else(|| Error::failure("the mask has another size than its pixels").at(file))
        }
        ControlPicture::Image(_) => {
            let bytes = plain_file::read(file)
                .at_path(file, "cannot read the control image")
                .map_err(|e| e.help("name an existing PNG or JPEG file"))?;
            let image = image::load_from_memory(&bytes).map_err(|e| {
                Error::input(format!("cannot read this as an image: {e}"))
                    .at(file)
                    .help("the file is damaged or is not a PNG or JPEG")
            })?;
            let image = match image {
                DynamicImage::ImageLuma16(values) => {
                    if values.iter().any(|&v| v > 255) {
                        progress.line(format!(
                            "warning: {}: grey of 16 bits, in which every value above 255 is white, as in diffusers; save it with 8 bits to keep its greys",
                            file.display()
                        ));
                    }
                    clipped(&values)
                }
                other => other,
            };
            if image.to_luma8().iter().all(|&v| v <= 3) {
                progress.line(format!(
                    "warning: {}: all grey values are 0 to 3; if this is a mask of class indices, give it as --control-mask",
                    file.display()
                ));
            }
            Ok(image)
        }
    }
}

/// Grey of 16 bits as Pillow turns it into 8: values above 255 are 255.
fn clipped(values: &image::ImageBuffer<image::Luma<u16>, Vec<u16>>) -> DynamicImage {
    let clip = |x, y| image::Luma([u8::try_from(values.get_pixel(x, y).0[0]).unwrap_or(u8::MAX)]);
    DynamicImage::ImageLuma8(image::GrayImage::from_fn(values.width(), values.height(), clip))
}

/// The ultrasound sector of an echocardiogram, in the mask's size.
fn read_sector(file: &Path, mask: &Picture) -> Result<Vec<bool>> {
    let picture = Picture::read(file)?;
    if (picture.width, picture.height) != (mask.width, mask.height) {
        return Err(Error::input(format!(
            "{} x {} pixels, and the mask has {} x {}",
            picture.width, picture.height, mask.width, mask.height
        ))
        .at(file)
        .help("name an image of the mask's size: the one that the mask was drawn on"));
    }
    Ok(sector::find(&picture.pixels, picture.width))
}

/// Refuses a sector that nothing is given, and a mask without the sector that the networks need.
fn check_sector(options: &SampleOptions, pipeline: &Pipeline) -> Result<()> {
    match (&options.control, pipeline.sees_sector()) {
        (Some(ControlPicture::Mask { sector: None, mask }), true) => {
            Err(Error::input("this model is given the ultrasound sector with the mask")
                .at(mask)
                .help("name the echocardiogram that the mask was drawn on: --sector PNG"))
        }
        (Some(ControlPicture::Mask { sector: Some(sector), .. }), false) => {
            Err(Error::input("this model is not given the ultrasound sector")
                .at(sector)
                .help("leave out --sector"))
        }
        _ => Ok(()),
    }
}

/// (1, 3, height, width) in [0, 1]. Without a size the image keeps its own, cut down to multiples of
/// `factor`.
fn control_tensor(
    image: DynamicImage,
    filter: FilterType,
    size: Option<[i64; 2]>,
    factor: i64,
) -> Result<Tensor> {
    let (width, height) = (i64::from(image.width()), i64::from(image.height()));
    let [height_to, width_to] = size.unwrap_or([height - height % factor, width - width % factor]);
    if height_to < 1 || width_to < 1 || height_to > 16384 || width_to > 16384 {
        return Err(Error::input(format!("a control image of {height} x {width} pixels"))
            .help(format!("it must have at least {factor} pixels a side, or give --height and --width")));
    }
    let image = match (height_to, width_to) == (height, width) {
        true => image,
        false => image.resize_exact(width_to as u32, height_to as u32, filter),
    };
    let pixels = Tensor::from_slice(image.to_rgb8().as_raw());
    let pixels = pixels.f_view([1, height_to, width_to, 3])?.f_permute([0, 3, 1, 2])?;
    Ok(pixels.to_kind(Kind::Float).contiguous() / 255.0)
}

/// Writes an image (1 or 3, height, width) in [0, 1] as 8-bit grey or RGB.
pub(super) fn write_png(image: &Tensor, file: &Path) -> Result<()> {
    let size = image.size();
    let bytes = (image * 255.0).round().to_kind(Kind::Uint8).f_permute([1, 2, 0])?.contiguous();
    let bytes: Vec<u8> = bytes.f_view(-1)?.try_into()?;
    let colour = if size[0] == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    picture::write_png(file, &bytes, size[2] as usize, size[1] as usize, colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_image_is_cut_down_to_what_fits() {
        let image = DynamicImage::ImageLuma8(image::GrayImage::from_pixel(21, 18, image::Luma([255])));
        let lanczos = FilterType::Lanczos3;
        let tensor = control_tensor(image.clone(), lanczos, None, 8).unwrap();
        assert_eq!(tensor.size(), [1, 3, 16, 16]);
        assert!((tensor - 1.0).abs().max().double_value(&[]) < 0.01);
        let larger = control_tensor(image.clone(), lanczos, Some([24, 32]), 8).unwrap();
        assert_eq!(larger.size(), [1, 3, 24, 32]);
        assert!(control_tensor(image, lanczos, None, 32).is_err());
    }

    #[test]
    fn grey_of_16_bits_is_clipped_as_in_pillow() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.png");
        let values = [0u16, 100, 255, 256, 21845, u16::MAX];
        image::ImageBuffer::<image::Luma<u16>, _>::from_raw(6, 1, values.to_vec())
            .unwrap()
            .save(&file)
            .unwrap();
        let read = read_control(&ControlPicture::Image(file), &Progress::new(true)).unwrap();
        assert_eq!(read.to_luma8().into_raw(), [0, 100, 255, 255, 255, 255]);
    }

    #[test]
    fn a_resized_mask_has_no_new_classes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("m.png");
        let pixels = (0..9 * 9).map(|at| (at * 7 % 4) as u8).collect();
        Picture { width: 9, height: 9, pixels }.write(&file).unwrap();
        let values = |control: ControlPicture| -> Vec<i64> {
            let image = read_control(&control, &Progress::new(true)).unwrap();
            let tensor = control_tensor(image, control.filter(), Some([16, 24]), 8).unwrap() * 255.0;
            tensor.round().to_kind(Kind::Int64).flatten(0, -1).try_into().unwrap()
        };
        assert!(
            values(ControlPicture::Mask { mask: file.clone(), sector: None })
                .iter()
                .all(|v| [0, 85, 170, 255].contains(v))
        );
        // Class indices seen as a picture are almost black.
        assert!(values(ControlPicture::Image(file)).iter().all(|&v| v < 10));
    }

    #[test]
    fn an_image_is_rounded_as_numpy_rounds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.png");
        let image = Tensor::from_slice(&[0.0f32, 1.0, 0.5, 0.4999]).view([1, 2, 2]);
        write_png(&image, &file).unwrap();
        assert_eq!(Picture::read(&file).unwrap().pixels, [0, 255, 128, 127]);
    }

    #[test]
    fn what_is_there_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_empty(dir.path()).is_ok());
        fs::write(dir.path().join("mine.txt"), "x").unwrap();
        assert!(check_empty(dir.path()).unwrap_err().to_string().contains("not empty"));
    }
}
