//! The ultrasound sector: the part of a picture that the probe saw. Outside it a picture is black whatever the heart
//! looks like, so a generator that is given the sector need not guess where the black begins.

use crate::vocabulary::MASK_CLASSES;

/// The label of background inside the sector, in a mask that tells it from what lies outside (0).
pub const IN_SECTOR: u8 = MASK_CLASSES as u8;

/// Grey values from here on are brighter than black: 0.015 of the range, which compression leaves at the sector's edge.
const BRIGHT: u8 = 4;

/// Where the sector is in a grey picture of `width` columns: pixels brighter than black, closed so that speckle and
/// chambers leave no holes, the largest connected part of it, each row from its first to its last pixel.
pub fn find(picture: &[u8], width: usize) -> Vec<bool> {
    if width == 0 || !picture.len().is_multiple_of(width) {
        return vec![false; picture.len()];
    }
    let height = picture.len() / width;
    let bright: Vec<bool> = picture.iter().map(|&grey| grey >= BRIGHT).collect();
    // 9 pixels of 128.
    let reach = (width.min(height) * 4).div_ceil(128).max(1);
    let mut sector = largest_part(&closed(&bright, width, reach), width);
    for row in sector.chunks_exact_mut(width) {
        let (first, last) = (row.iter().position(|&seen| seen), row.iter().rposition(|&seen| seen));
        if let (Some(first), Some(last)) = (first, last) {
            row[first..=last].fill(true);
        }
    }
    sector
}

/// Marks the background inside the sector of `picture` in its mask, as [`IN_SECTOR`].
pub fn mark(picture: &[u8], mask: &mut [u8], width: usize) {
    for (class, seen) in mask.iter_mut().zip(find(picture, width)) {
        if *class == 0 && seen {
            *class = IN_SECTOR;
        }
    }
}

/// Without the holes that a square of `reach` pixels around its centre does not fit into.
fn closed(pixels: &[bool], width: usize, reach: usize) -> Vec<bool> {
    // With a margin, so that what grows over the edge shrinks back.
    let wide = width + 2 * reach;
    let mut grounds = vec![false; wide * (pixels.len() / width + 2 * reach)];
    for (y, row) in pixels.chunks_exact(width).enumerate() {
        grounds[(y + reach) * wide + reach..][..width].copy_from_slice(row);
    }
    let inverted = |pixels: &[bool]| -> Vec<bool> { pixels.iter().map(|&pixel| !pixel).collect() };
    let grown_and_shrunk = inverted(&grown(&inverted(&grown(&grounds, wide, reach)), wide, reach));
    let rows = grown_and_shrunk.chunks_exact(wide).skip(reach).take(pixels.len() / width);
    rows.flat_map(|row| row[reach..][..width].to_vec()).collect()
}

/// Every pixel that has a true one at most `reach` columns and rows away.
pub fn grown(pixels: &[bool], width: usize, reach: usize) -> Vec<bool> {
    let along = |line: &[bool]| -> Vec<bool> {
        let near = |i: usize| line[i.saturating_sub(reach)..(i + reach + 1).min(line.len())].contains(&true);
        (0..line.len()).map(near).collect()
    };
    let rows: Vec<bool> = pixels.chunks_exact(width).flat_map(along).collect();
    let mut all = vec![false; pixels.len()];
    for x in 0..width {
        let column: Vec<bool> = rows.iter().skip(x).step_by(width).copied().collect();
        for (y, near) in along(&column).into_iter().enumerate() {
            all[y * width + x] = near;
        }
    }
    all
}

/// The largest of the parts that hang together by their sides.
fn largest_part(pixels: &[bool], width: usize) -> Vec<bool> {
    let mut part = vec![0usize; pixels.len()];
    let (mut parts, mut largest) = (0, (0, 0));
    for start in 0..pixels.len() {
        if !pixels[start] || part[start] != 0 {
            continue;
        }
        parts += 1;
        part[start] = parts;
        let (mut queue, mut size) = (vec![start], 0);
        while let Some(at) = queue.pop() {
            size += 1;
            let x = at % width;
            let sides = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then(|| at + 1),
                at.checked_sub(width),
                (at + width < pixels.len()).then(|| at + width),
            ];
            for next in sides.into_iter().flatten() {
                if pixels[next] && part[next] == 0 {
                    part[next] = parts;
                    queue.push(next);
                }
            }
        }
        largest = largest.max((size, parts));
    }
    part.into_iter().map(|part| part != 0 && part == largest.1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A triangle with its apex at the top, `grey` inside, a dark chamber in it and a bright dot far away.
    fn picture(grey: u8) -> Vec<u8> {
        let mut pixels = vec![0; 64 * 64];
        for y in 4..60usize {
            for x in 0..64usize {
                let inside = x.abs_diff(32) * 2 <= y - 4;
                let chamber = x.abs_diff(32) < 9 && y.abs_diff(40) < 9;
                // Speckle leaves every third pixel black.
                if inside && !chamber && !(x + y).is_multiple_of(3) {
                    pixels[y * 64 + x] = grey;
                }
            }
        }
        pixels[2 * 64 + 60] = 255;
        pixels
    }

    #[test]
    fn speckle_and_chambers_leave_no_holes_and_a_dot_outside_is_not_the_sector() {
        let sector = find(&picture(80), 64);
        assert!(sector[40 * 64 + 32] && !sector[2 * 64 + 60] && !sector[20 * 64 + 2]);
        let inside = (0..64 * 64usize)
            .filter(|at| at / 64 >= 4 && at / 64 < 60)
            .filter(|at| (at % 64).abs_diff(32) * 2 <= at / 64 - 4);
        let missing = inside.clone().filter(|&at| !sector[at]).count();
        let further = sector.iter().filter(|&&seen| seen).count() + missing - inside.count();
        assert!(missing < 60 && further < 60, "{missing} {further}");
    }

    #[test]
    fn black_pictures_have_no_sector_and_full_ones_are_all_sector() {
        assert!(find(&picture(BRIGHT - 1), 64).iter().filter(|&&seen| seen).count() < 4);
        assert!(find(&[], 0).is_empty());
        assert!(find(&[90; 48], 8).iter().all(|&seen| seen));
    }

    #[test]
    fn structures_stay_what_they_are() {
        let mut mask = vec![0; 64 * 64];
        mask[40 * 64 + 32] = 1;
        mark(&picture(80), &mut mask, 64);
        assert_eq!((mask[40 * 64 + 32], mask[50 * 64 + 32], mask[0]), (1, IN_SECTOR, 0));
    }
}
