//! Resizing as torchvision does it on tensors.

use crate::picture::Picture;

/// For each output pixel: the first input pixel and the weights from there.
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

/// Weights of PyTorch's `_upsample_bilinear2d_aa` (UpSampleKernel.cpp, `align_corners = false`): a
/// triangle as wide as one output pixel, but no narrower than one input pixel.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    (0..to)
        .map(|i| {
            let center = scale * (i as f64 + 0.5);
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weight = |j: usize| (1.0 - ((j as f64 - center + 0.5) / support).abs()).max(0.0);
            let sum: f64 = (start..end).map(weight).sum();
            Taps { start, weights: (start..end).map(|j| (weight(j) / sum) as f32).collect() }
        })
        .collect()
}

/// Bilinear with antialiasing: torchvision's `resize(…, BILINEAR, antialias=True)` on a tensor,
/// rounded half to even. `width` and `height` are at least 1.
pub fn bilinear(picture: &Picture, width: usize, height: usize) -> Picture {
    let rows: Vec<f32> = {
        let taps = taps(picture.width, width);
        let mut rows = Vec::with_capacity(width * picture.height);
        for row in picture.pixels.chunks_exact(picture.width.max(1)) {
            for tap in &taps {
                let pixels = row[tap.start..].iter().zip(&tap.weights);
                rows.push(pixels.map(|(&p, &w)| f32::from(p) * w).sum::<f32>());
            }
        }
        rows
    };
    let mut pixels = Vec::with_capacity(width * height);
    let mut line = vec![0f32; width];
    for tap in taps(picture.height, height) {
        line.fill(0.0);
        for (row, &weight) in rows[tap.start * width..].chunks_exact(width).zip(&tap.weights) {
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
