//! Project Wycheproof's vectors for the three signatures, through the function that verifies
//! tokens.
//!
//! The vectors sign arbitrary messages rather than whole JWS, so they enter below the parsing of
//! the compact form, which the tests over HTTP mutate. What Wycheproof calls acceptable may go
//! either way.

use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify};

use super::*;

#[derive(Default)]
struct Tally {
    valid: u32,
    invalid: u32,
}

impl Tally {
    fn check(
        &mut self,
        key: &VerifyingKey,
        id: usize,
        message: &[u8],
        signature: &[u8],
        must: TestResult,
    ) {
        let signed = key.signed(message, &URL_SAFE_NO_PAD.encode(signature));
        match must {
            TestResult::Valid => {
                self.valid += 1;
                assert!(signed, "{id} is valid");
            }
            TestResult::Invalid => {
                self.invalid += 1;
                assert!(!signed, "{id} is invalid");
            }
            TestResult::Acceptable => {}
        }
    }

    fn assert_that_there_were_some(&self) {
        assert!(self.valid > 5 && self.invalid > 50, "{} {}", self.valid, self.invalid);
    }
}

/// A number as JWK writes it: without leading zeros, or with as many as make it `length`.
fn number(bytes: &[u8], length: usize) -> String {
    let significant: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    let mut padded = vec![0; length.saturating_sub(significant.len())];
    padded.extend(significant);
    URL_SAFE_NO_PAD.encode(padded)
}

#[test]
fn es256_holds_against_wycheproof() {
    let mut tally = Tally::default();
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    for group in set.test_groups {
        let (x, y) = (number(&group.key.affine_x, 32), number(&group.key.affine_y, 32));
        let key = jsonwebtoken::DecodingKey::from_ec_components(&x, &y).unwrap();
        let key = VerifyingKey { algorithm: Algorithm::Es256, key };
        for test in group.tests {
            tally.check(&key, test.tc_id, &test.msg, &test.sig, test.result);
        }
    }
    tally.assert_that_there_were_some();
}

#[test]
fn eddsa_holds_against_wycheproof() {
    let mut tally = Tally::default();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in set.test_groups {
        let x = URL_SAFE_NO_PAD.encode(&*group.key.pk);
        let key = jsonwebtoken::DecodingKey::from_ed_components(&x).unwrap();
        let key = VerifyingKey { algorithm: Algorithm::EdDsa, key };
        for test in group.tests {
            tally.check(&key, test.tc_id, &test.msg, &test.sig, test.result);
        }
    }
    tally.assert_that_there_were_some();
}

#[test]
fn rs256_holds_against_wycheproof() {
    let mut tally = Tally::default();
    let set = rsa_pkcs1_verify::TestSet::load(rsa_pkcs1_verify::TestName::Rsa2048Sha256).unwrap();
    for group in set.test_groups {
        let (n, e) = (number(&group.key.n, 0), number(&group.key.e, 0));
        let key = jsonwebtoken::DecodingKey::from_rsa_components(&n, &e).unwrap();
        let key = VerifyingKey { algorithm: Algorithm::Rs256, key };
        for test in group.tests {
            tally.check(&key, test.tc_id, &test.msg, &test.sig, test.result);
        }
    }
    tally.assert_that_there_were_some();
}
