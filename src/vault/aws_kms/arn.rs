//! The name of a key at AWS KMS.

/// What is wrong with an ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyArn {
    /// An alias can be pointed at another key, which then opens nothing.
    #[error("names an alias, which may come to mean another key; name the key itself")]
    Alias,
    /// Anything else.
    #[error("after awskms: comes a key's ARN, such as arn:aws:kms:eu-central-1:111122223333:key/…")]
    Form,
}

/// The ARN of a key, as
/// [AWS writes it](https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#key-id-key-ARN).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyArn {
    text: String,
    partition: String,
    region: String,
    account: String,
    key: String,
}

impl KeyArn {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidKeyArn> {
        let parts: Vec<_> = text.split(':').collect();
        let &["arn", partition, "kms", region, account, resource] = parts.as_slice() else {
            return Err(InvalidKeyArn::Form);
        };
        let named = |part: &str| {
            (1..=64).contains(&part.len())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        let is_account = account.len() == 12 && account.chars().all(|c| c.is_ascii_digit());
        if !named(partition) || !partition.starts_with("aws") || !named(region) || !is_account {
            return Err(InvalidKeyArn::Form);
        }
        if resource.starts_with("alias/") {
            return Err(InvalidKeyArn::Alias);
        }
        let key = resource.strip_prefix("key/").filter(|key| named(key));
        let [partition, region, account, key] =
            [partition, region, account, key.ok_or(InvalidKeyArn::Form)?].map(str::to_owned);
        Ok(Self { text: text.to_owned(), partition, region, account, key })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// Returns the host of the region's endpoint
    /// ([AWS's list](https://docs.aws.amazon.com/general/latest/gr/kms.html)).
    pub(super) fn host(&self) -> String {
        let suffix = if self.partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        format!("kms.{}.{suffix}", self.region)
    }

    /// Returns what names the key's bytes. A multi-Region key has the same bytes under the same id in every region, so
    /// that another region may take over under the same name.
    pub(super) fn place(&self) -> String {
        if self.key.starts_with("mrk-") {
            format!("{}:{}:{}", self.partition, self.account, self.key)
        } else {
            self.text.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn an_arn_names_a_key_and_its_region() {
        assert_eq!(KeyArn::parse(KEY).unwrap().region(), "eu-central-1");
        for text in [
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd",
            "arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
        ] {
            assert!(KeyArn::parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/a/b",
            "arn:aws:kms:eu-central-1:111122223333:key/a:b",
            "arn:aws:kms:eu-central-1:1111:key/a",
            "arn:aws:kms::111122223333:key/a",
            "arn:aws:kms:evil.example/:111122223333:key/a",
            "arn:aws:s3:eu-central-1:111122223333:key/a",
            "arn:gcp:kms:eu-central-1:111122223333:key/a",
        ] {
            assert_eq!(KeyArn::parse(text), Err(InvalidKeyArn::Form), "{text}");
        }
        let alias = "arn:aws:kms:eu-central-1:111122223333:alias/strongroom";
        assert_eq!(KeyArn::parse(alias), Err(InvalidKeyArn::Alias));
    }

    #[test]
    fn a_multi_region_key_is_the_same_in_every_region_and_no_other_key_is() {
        let place = |region: &str, key: &str| {
            KeyArn::parse(&format!("arn:aws:kms:{region}:111122223333:key/{key}")).unwrap().place()
        };
        assert_eq!(place("eu-central-1", "mrk-12"), place("us-east-1", "mrk-12"));
        assert_ne!(place("eu-central-1", "mrk-12"), place("eu-central-1", "mrk-13"));
        assert_ne!(place("eu-central-1", "12"), place("us-east-1", "12"));
    }
}
