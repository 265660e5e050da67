//! Key pairs for clients, in the shape that S3 tools expect.

use rand::rngs::StdRng;
use rand::{CryptoRng, Rng as _, SeedableRng as _};

use base::Secret;

/// 20 capitals and digits, as Amazon's, behind letters of our own.
const ID_PREFIX: &str = "S3O";
const ID_CHARS: usize = 20;
const ID_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// 40 characters as Amazon's, but none that a shell or a URL would mind; 238 bits.
const SECRET_CHARS: usize = 40;
const SECRET_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A key pair for a client.
#[derive(Debug, Clone)]
pub(super) struct KeyPair {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret,
}

impl KeyPair {
    /// A pair drawn from the operating system's randomness.
    pub(super) fn generate() -> Self {
        Self::draw(&mut StdRng::from_os_rng())
    }

    fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut text = |alphabet: &[u8], chars: usize| -> String {
            (0..chars)
                .map(|_| char::from(alphabet[rng.random_range(0..alphabet.len())]))
                .collect()
        };
        let tail = text(ID_ALPHABET, ID_CHARS - ID_PREFIX.len());
        let secret = text(SECRET_ALPHABET, SECRET_CHARS);
        Self {
            access_key_id: format!("{ID_PREFIX}{tail}"),
            secret_access_key: Secret::new(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_the_usual_shape_and_differ() {
        let mut rng = StdRng::seed_from_u64(7);
        let (one, two) = (KeyPair::draw(&mut rng), KeyPair::draw(&mut rng));
        assert_eq!(one.access_key_id.len(), ID_CHARS);
        assert_eq!(one.secret_access_key.reveal().len(), SECRET_CHARS);
        let plain = |c: char| c.is_ascii_alphanumeric();
        assert!(one.access_key_id.chars().all(plain));
        assert!(one.secret_access_key.reveal().chars().all(plain));
        assert_ne!(one.access_key_id, two.access_key_id);
        assert_ne!(
            one.secret_access_key.reveal(),
            two.secret_access_key.reveal()
        );
    }
}
