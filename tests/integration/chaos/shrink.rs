//! Fewer faults that fail as well: delta debugging (Zeller and Hildebrandt, "Simplifying and
//! Isolating Failure-Inducing Input").

/// The smallest list that was found to fail within so many runs; the whole list fails.
pub async fn shrink(
    all: Vec<usize>,
    mut runs: usize,
    mut fails: impl AsyncFnMut(&[usize]) -> bool,
) -> Vec<usize> {
    let mut left = all;
    let mut parts = 2;
    while !left.is_empty() && runs > 0 {
        // At last the single ones: whether nothing at all fails, too.
        let size = left.len().div_ceil(parts);
        let mut found = None;
        for start in (0..left.len()).step_by(size) {
            let end = (start + size).min(left.len());
            let without = [&left[..start], &left[end..]].concat();
            if runs == 0 {
                break;
            }
            runs -= 1;
            if fails(&without).await {
                found = Some(without);
                break;
            }
        }
        match found {
            Some(fewer) => {
                left = fewer;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (2 * parts).min(left.len()),
        }
    }
    left
}

#[tokio::test]
async fn faults_that_a_failure_does_not_need_are_left_out() {
    for needed in [vec![], vec![7], vec![3, 4], vec![0, 19], vec![2, 9, 10]] {
        let mut runs = 0;
        let left = shrink((0..20).collect(), 200, async |faults: &[usize]| {
            runs += 1;
            needed.iter().all(|number| faults.contains(number))
        })
        .await;
        assert_eq!(left, needed);
        assert!(runs <= 70, "{runs} runs");
    }
    let left = shrink((0..20).collect(), 3, async |faults: &[usize]| faults.contains(&7)).await;
    assert!(left.contains(&7) && left.len() < 20, "{left:?}");
}
