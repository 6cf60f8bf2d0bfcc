//! What chance alone would do: the little statistics that guard the rows of the matrix against small numbers.

/// Continued fractions converge in a few dozen steps; this many are for the worst arguments.
const STEPS: usize = 300;
/// Close enough for a probability that is compared with 1e-4.
const EPSILON: f64 = 1e-12;

/// The probability of at least `k` bad ones among `n` if each is bad with probability `p`: the exact binomial tail,
/// by the regularised incomplete beta function (decision.md, section 3).
pub(crate) fn binomial_tail(k: u64, n: u64, p: f64) -> f64 {
    if k == 0 || p >= 1.0 {
        return 1.0;
    }
    if k > n || p <= 0.0 {
        return 0.0;
    }
    incomplete_beta(k as f64, (n - k) as f64 + 1.0, p)
}

/// The upper end of the one-sided 95 % confidence interval of a share, by Wilson. Without a sample nothing is known.
pub(crate) fn upper95(k: f64, n: f64) -> f64 {
    // The quantile of the normal distribution for 95 %.
    const Z: f64 = 1.645;
    if n <= 0.0 {
        return 1.0;
    }
    let share = (k / n).clamp(0.0, 1.0);
    let middle = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle + spread) / (1.0 + Z * Z / n)).min(1.0)
}

/// The least-squares line through points: its slope, and how much of the variation it explains (r²). None for fewer
/// than three points, or if nothing varies.
pub(crate) fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    if points.len() < 3 {
        return None;
    }
    let n = points.len() as f64;
    let (mx, my) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        xx += (x - mx) * (x - mx);
        xy += (x - mx) * (y - my);
        yy += (y - my) * (y - my);
    }
    (xx > 0.0 && yy > 0.0).then(|| (xy / xx, xy * xy / (xx * yy)))
}

/// I_x(a, b), by its continued fraction (modified Lentz), from the side on which it converges fast.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    let value = if x < (a + 1.0) / (a + b + 2.0) {
        front * beta_fraction(a, b, x) / a
    } else {
        1.0 - front * beta_fraction(b, a, 1.0 - x) / b
    };
    value.clamp(0.0, 1.0)
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    // Keeps the recurrence from dividing by zero.
    const TINY: f64 = 1e-300;
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let (mut c, mut d) = (1.0, 1.0 / away(1.0 - (a + b) * x / (a + 1.0)));
    let mut f = d;
    for m in 1..STEPS {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        f *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        f *= d * c;
        if (d * c - 1.0).abs() < EPSILON {
            break;
        }
    }
    f
}

/// The logarithm of the gamma function for positive arguments (Lanczos, g = 7, nine terms).
fn ln_gamma(x: f64) -> f64 {
    const C: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let sum = C.iter().enumerate().skip(1).fold(C[0], |sum, (i, c)| sum + c / (x + i as f64));
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tail, added up term by term.
    fn slowly(k: u64, n: u64, p: f64) -> f64 {
        let term = |i: u64| {
            let ways: f64 = (0..i).map(|j| ((n - j) as f64 / (j + 1) as f64).ln()).sum();
            (ways + i as f64 * p.ln() + (n - i) as f64 * (1.0 - p).ln()).exp()
        };
        (k..=n).map(term).sum()
    }

    #[test]
    fn the_tail_is_exact() {
        for n in [1, 3, 10, 57, 300] {
            for k in (1..=n).step_by(7) {
                for p in [0.001, 0.01, 0.05, 0.2, 0.5, 0.9] {
                    let (fast, slow) = (binomial_tail(k, n, p), slowly(k, n, p));
                    assert!((fast - slow).abs() < 1e-9 + slow * 1e-6, "{k} of {n} at {p}: {fast} {slow}");
                }
            }
        }
        assert!((binomial_tail(0, 10, 0.5) - 1.0).abs() < f64::EPSILON);
        assert!(binomial_tail(11, 10, 0.5) < f64::EPSILON);
        assert!(binomial_tail(1_000, 100_000, 0.05) > 0.999_999);
        assert!(binomial_tail(6_000, 100_000, 0.05) < 1e-30);
    }

    #[test]
    fn so_many_failures_are_beyond_chance_at_five_percent() {
        // The table of decision.md, section 3: the smallest k with a tail below 0.001.
        for (n, k) in
            [(3, 3), (5, 4), (10, 5), (20, 6), (50, 9), (100, 14), (500, 42), (1000, 74), (3000, 189)]
        {
            let smallest = (1..=n).find(|k| binomial_tail(*k, n, 0.05) < 0.001);
            assert_eq!(smallest, Some(k), "of {n}");
        }
    }

    #[test]
    fn the_upper_bound_narrows_with_the_sample() {
        assert!((upper95(0.0, 0.0) - 1.0).abs() < f64::EPSILON);
        assert!((upper95(0.0, 100.0) - 0.0263).abs() < 0.001);
        assert!((upper95(10.0, 1000.0) - 0.0167).abs() < 0.001);
        assert!(upper95(1000.0, 100_000.0) < 0.0106);
    }

    #[test]
    fn a_line_is_found_and_noise_is_not_one() {
        let straight: Vec<_> = (0..10).map(|i| (f64::from(i), f64::from(3 * i + 1))).collect();
        let (slope, fit) = line(&straight).unwrap();
        assert!((slope - 3.0).abs() < 1e-9 && (fit - 1.0).abs() < 1e-9);
        let zigzag: Vec<_> = (0..10).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert!(line(&zigzag).unwrap().1 < 0.1);
        assert_eq!(line(&[(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]), None);
        assert_eq!(line(&straight[..2]), None);
    }
}
