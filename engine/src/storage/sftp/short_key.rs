//! Private keys of the curve P-256 whose number is small.
//!
//! OpenSSH writes the number without leading zeros. In one key of 512 it has fewer than 32 bytes, and the crate `ssh-key` refuses
//! that.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{EcdsaKeypair, EcdsaPrivateKey, KeypairData};
use russh::keys::ssh_key::public::EcdsaPublicKey;
use secrecy::zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The bytes of the number.
const SIZE: usize = 32;

/// Decodes such a key in the format of OpenSSH; `None` for anything else.
pub(super) fn decode(text: &str, passphrase: Option<&str>) -> Option<PrivateKey> {
    let (body, _) = text.trim_start().strip_prefix(BEGIN)?.split_once(END)?;
    // Large enough from the beginning, because memory that is given up when it grows is not cleared
    let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
    base64.extend(body.split_ascii_whitespace());
    let container = Zeroizing::new(BASE64_STANDARD.decode(base64.as_bytes()).ok()?);
    let mut rest = container.strip_prefix(MAGIC)?;
    let cipher = field(&mut rest)?;
    // Key derivation and its options, the number of keys, the public key
    let (_, _, count, _) = (field(&mut rest)?, field(&mut rest)?, number(&mut rest)?, field(&mut rest)?);
    let private = field(&mut rest)?;
    let plain = match cipher {
        b"none" if count == 1 => Zeroizing::new(private.to_vec()),
        _ => decrypt(&container, passphrase?)?,
    };
    let mut rest = &plain[..];
    let is_right = number(&mut rest)? == number(&mut rest)?
        && field(&mut rest)? == b"ecdsa-sha2-nistp256"
        && field(&mut rest)? == b"nistp256";
    let EcdsaPublicKey::NistP256(public) = EcdsaPublicKey::from_sec1_bytes(field(&mut rest)?).ok()? else {
        return None;
    };
    let (short, comment) = (field(&mut rest)?, field(&mut rest)?);
    let mut bytes = Zeroizing::new([0; SIZE]);
    bytes.get_mut(SIZE.checked_sub(short.len())?..)?.copy_from_slice(short);
    let keypair = EcdsaKeypair::NistP256 { public, private: EcdsaPrivateKey::from(*bytes) };
    let comment = String::from_utf8_lossy(comment).into_owned();
    PrivateKey::new(KeypairData::Ecdsa(keypair), comment).ok().filter(|_| is_right)
}

/// Decrypts the private part, which is not decoded as long as it is encrypted. The tags of ciphers that have one are not public, so
/// it refuses those.
fn decrypt(container: &[u8], passphrase: &str) -> Option<Zeroizing<Vec<u8>>> {
    let key = PrivateKey::from_bytes(container).ok()?;
    let (secret, iv) = key.kdf().derive_key_and_iv(key.cipher(), passphrase).ok()?;
    let mut plain = Zeroizing::new(key.key_data().encrypted()?.to_vec());
    key.cipher().decrypt(&secret, &iv, &mut plain, None).ok()?;
    Some(plain)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*bytes))
}

/// Takes a field, in front of which is its size.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = number(rest)?;
    let (bytes, after) = rest.split_at_checked(usize::try_from(size).ok()?)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use russh::keys::decode_secret_key;
    use russh::keys::ssh_key::{HashAlg, PublicKey};

    use super::*;

    /// A key of `ssh-keygen` that protects nothing, and its encrypted form.
    const PLAIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQS2pS+rrgNkxiAr+9O6HQz/v9CGyzKb
y0Ug3uoYrc/DK88i4ZLSA6V6Q1sDhVHWegglH5vTrsnoXZQfYbAqkxKEAAAAoFiEMnVYhD
J1AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLalL6uuA2TGICv7
07odDP+/0IbLMpvLRSDe6hitz8MrzyLhktIDpXpDWwOFUdZ6CCUfm9OuyehdlB9hsCqTEo
QAAAAfV92fvAJ+dGnoxKw6ysFq3eFksl1ZqAOE+amzmhZ4oQAAAAR0ZXN0AQIDBAU=
-----END OPENSSH PRIVATE KEY-----
";
    const ENCRYPTED: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABC06WIEP2
GKrWUjY1xe7nRKAAAAEAAAAAEAAABoAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlz
dHAyNTYAAABBBLalL6uuA2TGICv707odDP+/0IbLMpvLRSDe6hitz8MrzyLhktIDpXpDWw
OFUdZ6CCUfm9OuyehdlB9hsCqTEoQAAACgMXBpAoqW7ssv+0gun5WvOFFVVQux8bROPdBO
tTm1F1CWIkkRJs5UeFvU+wUKY0lgPlNOoFs/upmXX/4sC2WtMDVHq2Z0rxKUwacFhPitOl
+bYEVhCGIK/B5HDQLHRu067DQ4oOGmpA/GJuN05I2bv/inK6D0+XKhJd2ErVw3FhHcfdSU
FcmkyWsgvtzN5WWudxq9ps+cV/xZbceJ3Kp0/A==
-----END OPENSSH PRIVATE KEY-----
";
    const PUBLIC: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBLalL6uuA2TGICv707odDP+\
                          /0IbLMpvLRSDe6hitz8MrzyLhktIDpXpDWwOFUdZ6CCUfm9OuyehdlB9hsCqTEoQ= test";

    #[test]
    fn key_whose_number_had_leading_zeros_was_refused() {
        let public: PublicKey = PUBLIC.parse().unwrap();
        for (text, passphrase) in [(PLAIN, None), (ENCRYPTED, Some("open sesame"))] {
            // Once the crate takes it, this module is not needed any more
            assert!(decode_secret_key(text, passphrase).is_err());
            let key = decode(text, passphrase).unwrap();
            assert_eq!(key.public_key(), &public);
            let signature = key.sign("test", HashAlg::Sha256, b"message").unwrap();
            public.verify("test", b"message", &signature).unwrap();
            assert!(public.verify("test", b"other", &signature).is_err());
        }
    }

    #[test]
    fn what_is_no_such_key_is_left_to_the_error_of_the_crate() {
        assert!(decode(ENCRYPTED, Some("wrong")).is_none() && decode(ENCRYPTED, None).is_none());
        assert!(decode("", None).is_none() && decode(&PLAIN.replace("-----END", "-----"), None).is_none());
        let body: String = PLAIN.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = BASE64_STANDARD.decode(body).unwrap();
        for size in 0..bytes.len() - 5 {
            let text = format!("{BEGIN}\n{}\n{END}\n", BASE64_STANDARD.encode(&bytes[..size]));
            assert!(decode(&text, None).is_none(), "{size}");
        }
    }
}
