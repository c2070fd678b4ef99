//! Resizing as torchvision does it on tensors, and the antialiasing filters behind it, which are Pillow's
//! too.

use crate::picture::Picture;

/// What an output pixel is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys's cubic with a = -0.5, which is Pillow's; PyTorch's own has a = -0.75 without antialiasing.
    Bicubic,
}

impl Filter {
    /// Half its width, in output pixels (in input pixels where the picture grows).
    fn radius(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => -0.5 * (((x - 5.0) * x + 8.0) * x - 4.0),
            Self::Bicubic => 0.0,
        }
    }
}

/// For each output pixel: the first input pixel and the weights from there, which add up to 1.
pub(crate) struct Taps {
    pub start: usize,
    pub weights: Vec<f64>,
}

/// Weights of PyTorch's `_upsample_bilinear2d_aa` and `_upsample_bicubic2d_aa` (UpSampleKernel.cpp,
/// `align_corners = false`) and of Pillow (Resample.c): the filter as wide as output pixels are, but no
/// narrower than input pixels.
pub(crate) fn taps(from: usize, to: usize, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let width = scale.max(1.0);
    let support = filter.radius() * width;
    (0..to)
        .map(|i| {
            let center = scale * (i as f64 + 0.5);
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weight = |j: usize| filter.at((j as f64 - center + 0.5) / width);
            let sum: f64 = (start..end).map(weight).sum();
            Taps { start, weights: (start..end).map(|j| weight(j) / sum).collect() }
        })
        .collect()
}

/// Bilinear with antialiasing: torchvision's `resize(…, BILINEAR, antialias=True)` on a tensor,
/// rounded half to even. `width` and `height` are at least 1.
pub fn bilinear(picture: &Picture, width: usize, height: usize) -> Picture {
    // The weights are rounded as PyTorch's are.
    let taps = |from, to| -> Vec<(usize, Vec<f32>)> {
        let single = |tap: Taps| (tap.start, tap.weights.into_iter().map(|w| w as f32).collect());
        taps(from, to, Filter::Bilinear).into_iter().map(single).collect()
    };
    let rows: Vec<f32> = {
        let taps = taps(picture.width, width);
        let mut rows = Vec::with_capacity(width * picture.height);
        for row in picture.pixels.chunks_exact(picture.width.max(1)) {
            for (start, weights) in &taps {
                let pixels = row[*start..].iter().zip(weights);
                rows.push(pixels.map(|(&p, &w)| f32::from(p) * w).sum::<f32>());
            }
        }
        rows
    };
    let mut pixels = Vec::with_capacity(width * height);
    let mut line = vec![0f32; width];
    for (start, weights) in taps(picture.height, height) {
        line.fill(0.0);
        for (row, &weight) in rows[start * width..].chunks_exact(width).zip(&weights) {
            for (sum, &p) in line.iter_mut().zip(row) {
                *sum += p * weight;
            }
        }
        pixels.extend(line.iter().map(|v| v.round_ties_even().clamp(0.0, 255.0) as u8));
    }
    Picture { width, height, pixels }
}

/// Nearest neighbour: torchvision's `resize(…, NEAREST)` on a tensor, that is PyTorch's
/// `upsample_nearest2d` (input index = floor(output index x scale), in f32).
pub fn nearest(picture: &Picture, width: usize, height: usize) -> Picture {
    let sources = |from: usize, to: usize| -> Vec<usize> {
        let scale = from as f32 / to as f32;
        (0..to).map(|i| ((i as f32 * scale) as usize).min(from - 1)).collect()
    };
    let columns = sources(picture.width, width);
    let mut pixels = Vec::with_capacity(width * height);
    for y in sources(picture.height, height) {
        let row = &picture.pixels[y * picture.width..];
        pixels.extend(columns.iter().map(|&x| row[x]));
    }
    Picture { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_picture_stays_flat_and_its_own_size_is_the_identity() {
        let flat = Picture { width: 37, height: 21, pixels: vec![93; 37 * 21] };
        assert!(bilinear(&flat, 16, 50).pixels.iter().all(|&p| p == 93));
        let ramp = Picture { width: 8, height: 4, pixels: (0..32).collect() };
        assert_eq!(bilinear(&ramp, 8, 4), ramp);
        assert_eq!(nearest(&ramp, 8, 4), ramp);
        assert_eq!(nearest(&ramp, 4, 2).pixels, [0, 2, 4, 6, 16, 18, 20, 22]);
    }
}
