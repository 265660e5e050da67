//! How often a body that broke off is asked for again.
//!
//! A backend that ends each response after a byte makes progress for ever; only progress that is
//! worth a request earns further ones, and there is an end to those as well.

use std::time::Duration;

/// The pauses before resumes that follow each other without worthwhile progress; behind the last, the read fails.
const RESUME_PAUSES_MS: [u64; 3] = [50, 250, 1_000];

/// The bytes behind which a resume has been worth its request.
const RESUME_PROGRESS_BYTES_MIN: u64 = 1 << 20;

/// Resumes of one read, however much each of them brought.
const RESUMES_PER_READ_MAX: u32 = 256;

/// The resumes of one read.
#[derive(Debug, Default)]
pub(super) struct Resumes {
    used: u32,
    in_row: usize,
    /// The bytes that the read had brought at the last resume.
    resumed_at: u64,
}

impl Resumes {
    /// The read begins anew, with the resumes that it has used.
    pub(super) fn begin_anew(&mut self) {
        self.resumed_at = 0;
    }

    /// The pause before the next resume of a read that has brought `delivered` bytes in all; nothing
    /// where the read has to fail.
    pub(super) fn next(&mut self, delivered: u64) -> Option<Duration> {
        if delivered - self.resumed_at >= RESUME_PROGRESS_BYTES_MIN {
            self.in_row = 0;
        }
        if self.used == RESUMES_PER_READ_MAX {
            return None;
        }
        let pause = *RESUME_PAUSES_MS.get(self.in_row)?;
        self.in_row += 1;
        self.used += 1;
        self.resumed_at = delivered;
        Some(Duration::from_millis(pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many resumes are allowed where each brings `step` bytes.
    fn allowed(resumes: &mut Resumes, delivered: &mut u64, step: u64) -> usize {
        std::iter::from_fn(|| {
            *delivered += step;
            resumes.next(*delivered)
        })
        .count()
    }

    #[test]
    fn only_worthwhile_progress_earns_further_resumes() {
        let (mut resumes, mut delivered) = (Resumes::default(), 0);
        let poor = RESUME_PROGRESS_BYTES_MIN / 8;
        assert_eq!(allowed(&mut resumes, &mut delivered, poor), 3);
        delivered += RESUME_PROGRESS_BYTES_MIN;
        assert_eq!(allowed(&mut resumes, &mut delivered, poor), 3);
    }

    #[test]
    fn resumes_of_one_read_end_however_much_each_brings() {
        let (mut resumes, mut delivered) = (Resumes::default(), 0);
        let all = allowed(&mut resumes, &mut delivered, RESUME_PROGRESS_BYTES_MIN);
        assert_eq!(all, 256);
    }
}
