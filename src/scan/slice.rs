//! One 2-D slice of a medical-image file, as numbers, before it becomes an 8-bit picture.

use crate::error::{Error, Result};
use crate::picture::Picture;
use crate::vocabulary::MASK_CLASSES;

/// The longest side of a picture; a header that gives more is taken to be damaged.
pub const MAX_SIDE: usize = 16_384;

/// How far a scaled class index may lie from a whole number: nibabel scales an 8-bit or 16-bit map of 0 to 3 to within
/// a thousandth of that.
const ROUNDING: f64 = 1e-3;

/// Row-major from the top left (x runs fastest), `values.len() == width * height`.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    pub width: usize,
    pub height: usize,
    pub values: Vec<f64>,
    /// Pixel width and height in mm, where the file gives it.
    pub spacing: Option<(f64, f64)>,
}

impl Slice {
    /// An 8-bit picture. Fractions (of a copy that was resampled) are rounded; a value outside
    /// 0..=255 is refused, because guessing a window would change the data.
    pub fn to_image(&self) -> Result<Picture> {
        self.convert(
            |v| (v.is_finite() && (-0.5..255.5).contains(&v)).then(|| v.round() as u8),
            |v, place| {
                Error::input(format!("the image holds {v} at {place}; grey values are 0 to 255"))
                    .help("export the image as 8-bit grey")
            },
        )
    }

    /// A mask of class indices: 0, 1, 2 or 3. A scaled label map gives them but for rounding (0.99998); a value that
    /// lies between two classes is refused.
    pub fn to_mask(&self) -> Result<Picture> {
        let class =
            |v: f64| (v - v.round()).abs() < ROUNDING && (0.0..MASK_CLASSES as f64).contains(&v.round());
        self.convert(
            |v| class(v).then(|| v.round() as u8),
            |v, place| {
                Error::input(format!("the mask holds {v} at {place}; a mask holds class indices 0 to 3"))
                    .help("0 background, 1 endocardium, 2 myocardium, 3 atrium; resample masks by nearest neighbour")
            },
        )
    }

    fn convert(
        &self,
        to: impl Fn(f64) -> Option<u8>,
        refuse: impl Fn(f64, String) -> Error,
    ) -> Result<Picture> {
        let mut pixels = Vec::with_capacity(self.values.len());
        for (i, &v) in self.values.iter().enumerate() {
            let place = || format!("x {}, y {}", i % self.width.max(1), i / self.width.max(1));
            pixels.push(to(v).ok_or_else(|| refuse(v, place()))?);
        }
        Ok(Picture { width: self.width, height: self.height, pixels })
    }
}

/// How numbers lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whole elements only; a remainder is ignored. Of 64-bit integers the first 53 bits count, far more than a
    /// picture has.
    pub fn decode(self, bytes: &[u8], big_endian: bool) -> Vec<f64> {
        fn all<const N: usize>(bytes: &[u8], big_endian: bool, to: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            let mut element = [0; N];
            bytes
                .chunks_exact(N)
                .map(|chunk| {
                    element.copy_from_slice(chunk);
                    if big_endian {
                        element.reverse();
                    }
                    to(element)
                })
                .collect()
        }
        match self {
            Self::U8 => all::<1>(bytes, big_endian, |b| f64::from(b[0])),
            Self::I8 => all::<1>(bytes, big_endian, |b| f64::from(b[0] as i8)),
            Self::U16 => all(bytes, big_endian, |b| f64::from(u16::from_le_bytes(b))),
            Self::I16 => all(bytes, big_endian, |b| f64::from(i16::from_le_bytes(b))),
            Self::U32 => all(bytes, big_endian, |b| f64::from(u32::from_le_bytes(b))),
            Self::I32 => all(bytes, big_endian, |b| f64::from(i32::from_le_bytes(b))),
            Self::U64 => all(bytes, big_endian, |b| u64::from_le_bytes(b) as f64),
            Self::I64 => all(bytes, big_endian, |b| i64::from_le_bytes(b) as f64),
            Self::F32 => all(bytes, big_endian, |b| f64::from(f32::from_le_bytes(b))),
            Self::F64 => all(bytes, big_endian, f64::from_le_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(values: Vec<f64>) -> Slice {
        Slice { width: 2, height: 2, values, spacing: None }
    }

    #[test]
    fn images_are_rounded_and_refused_outside_a_byte() {
        assert_eq!(slice(vec![0.0, 12.6, 255.0, 3.0]).to_image().unwrap().pixels, [0, 13, 255, 3]);
        for bad in [256.0, -1.0, f64::NAN, f64::INFINITY] {
            let message = slice(vec![0.0, 0.0, 0.0, bad]).to_image().unwrap_err().to_string();
            assert!(message.contains("at x 1, y 1"), "{message}");
        }
    }

    #[test]
    fn masks_take_exact_classes_only() {
        assert_eq!(slice(vec![0.0, 1.0, 2.0, 3.0]).to_mask().unwrap().pixels, [0, 1, 2, 3]);
        assert_eq!(slice(vec![1e-5, 0.99998, 2.0002, 2.9999999]).to_mask().unwrap().pixels, [0, 1, 2, 3]);
        for bad in [4.0, 0.5, -1.0, f64::NAN, 1.002, -0.4, 3.4] {
            let message = slice(vec![0.0, bad, 0.0, 0.0]).to_mask().unwrap_err().to_string();
            assert!(message.contains("at x 1, y 0"), "{message}");
        }
    }

    #[test]
    fn elements_of_both_byte_orders() {
        assert_eq!(Element::I16.decode(&[0xff, 0xfe, 1, 0], false), [-257.0, 1.0]);
        assert_eq!(Element::I16.decode(&[0xff, 0xfe, 0, 1], true), [-2.0, 1.0]);
        assert_eq!(Element::F64.decode(&1.5f64.to_be_bytes(), true), [1.5]);
        assert_eq!(Element::I64.decode(&(-3i64).to_be_bytes(), true), [-3.0]);
        assert_eq!(Element::U64.decode(&200u64.to_le_bytes(), false), [200.0]);
    }
}
