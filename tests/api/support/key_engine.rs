//! What the engines of master keys have in common.

use super::{AwsKms, Builder, Line, TestApp, Transit};

/// The kind of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    Transit,
    AwsKms,
}

/// Makes a test for each kind of engine of a function that takes an [`Elsewhere`].
#[macro_export]
macro_rules! for_each_engine {
    ($($name:ident),+ $(,)?) => {
        mod transit {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name($crate::support::Elsewhere::Transit).await;
                }
            )+
        }
        mod aws_kms {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name($crate::support::Elsewhere::AwsKms).await;
                }
            )+
        }
    };
}

impl Elsewhere {
    /// The kind's name in metrics and in `keys status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transit => "transit",
            Self::AwsKms => "awskms",
        }
    }

    /// The first byte of what a key of this kind wrapped.
    pub const fn format(self) -> &'static str {
        match self {
            Self::Transit => "2",
            Self::AwsKms => "3",
        }
    }

    /// An engine of this kind, with a new key.
    pub async fn start(self) -> KeyEngine {
        match self {
            Self::Transit => KeyEngine::Transit(Transit::start().await),
            Self::AwsKms => KeyEngine::AwsKms(AwsKms::start().await),
        }
    }
}

/// An engine with one key.
pub enum KeyEngine {
    Transit(Transit),
    AwsKms(AwsKms),
}

impl KeyEngine {
    /// A service's variables for the engine, and its master keys.
    pub async fn on(&self, builder: Builder, master_keys: &str) -> Builder {
        let builder = builder.set("STRONGROOM_MASTER_KEYS", master_keys);
        match self {
            Self::Transit(engine) => engine.on(builder).await,
            Self::AwsKms(engine) => engine.on(builder),
        }
    }

    /// A service whose one master key, `t1`, is at the engine.
    pub async fn app(&self) -> TestApp {
        self.on(TestApp::builder(), &self.entry("t1")).await.spawn().await
    }

    /// An entry of `STRONGROOM_MASTER_KEYS`.
    pub fn entry(&self, id: &str) -> String {
        match self {
            Self::Transit(engine) => engine.entry(id),
            Self::AwsKms(engine) => engine.entry(id),
        }
    }

    pub fn cut(&self, line: Line) {
        match self {
            Self::Transit(engine) => engine.cut(line),
            Self::AwsKms(engine) => engine.cut(line),
        }
    }

    /// All that was sent to the engine, and after it every part that is base64, decoded.
    pub fn sent(&self) -> Vec<u8> {
        match self {
            Self::Transit(engine) => engine.sent(),
            Self::AwsKms(engine) => engine.sent(),
        }
    }
}
