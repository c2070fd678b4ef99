//! Pieces of a mask that hang together.

use crate::vocabulary::Structure;

/// Keeps the largest piece of each annotated structure in a mask of class indices, in rows of `width` pixels; the others
/// become background. Pixels hang together that share an edge or a corner: MONAI's
/// `KeepLargestConnectedComponent(applied_labels=[1, 2, 3])` (monai/transforms/post/array.py, 1.6.1).
pub fn keep(classes: &mut [u8], width: usize) {
    for structure in Structure::CLASSES {
        let mask = structure.mask(classes);
        let Some(largest) = largest_piece(&mask, width) else { continue };
        let mut kept = largest.into_iter().peekable();
        for (i, class) in classes.iter_mut().enumerate().filter(|(i, _)| mask[*i]) {
            if kept.next_if_eq(&i).is_none() {
                *class = 0;
            }
        }
    }
}

/// The pixels of the largest 8-connected piece in rising order; of equal ones the first. None without a pixel.
pub(super) fn largest_piece(mask: &[bool], width: usize) -> Option<Vec<usize>> {
    let mut seen = vec![false; mask.len()];
    let mut largest: Vec<usize> = Vec::new();
    for start in 0..mask.len() {
        if !mask[start] || seen[start] {
            continue;
        }
        seen[start] = true;
        let (mut piece, mut next) = (vec![start], 0);
        while let Some(&at) = piece.get(next) {
            next += 1;
            let (x, y) = (at % width, at / width);
            for (row, column) in (y.saturating_sub(1)..=y + 1).flat_map(|row| {
                (x.saturating_sub(1)..=(x + 1).min(width - 1)).map(move |column| (row, column))
            }) {
                let i = row * width + column;
                if mask.get(i) == Some(&true) && !seen[i] {
                    seen[i] = true;
                    piece.push(i);
                }
            }
        }
        if piece.len() > largest.len() {
            largest = piece;
        }
    }
    largest.sort_unstable();
    (!largest.is_empty()).then_some(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_structure_the_largest_piece_stays_and_corners_hold_together() {
        let mut classes = [
            [1, 0, 0, 2, 2],
            [0, 1, 0, 0, 0], // The corner joins two pixels of the ventricle.
            [0, 0, 0, 0, 1],
            [2, 0, 3, 0, 0],
            [2, 2, 0, 0, 3],
        ]
        .concat();
        keep(&mut classes, 5);
        let expected =
            [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [2, 0, 3, 0, 0], [2, 2, 0, 0, 0]].concat();
        assert_eq!(classes, expected);
        let mut empty = vec![0; 25];
        keep(&mut empty, 5);
        assert_eq!(empty, [0; 25]);
    }
}
