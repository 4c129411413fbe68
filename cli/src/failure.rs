//! A command that did not work: one line on stderr that says what is wrong and what to do, and an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use varve_client::ClientError;
use varve_replica::ServerError;
use varve_replica::config::ConfigError;

/// Which of the exit codes a failure has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The cluster refused or failed.
    Refused,
    /// Wrong usage, or a configuration or data directory that cannot be used.
    Usage,
    /// The cluster cannot be reached.
    Unreachable,
}

impl Kind {
    fn exit_code(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
        }
    }
}

/// Why a command did not work.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    error: anyhow::Error,
}

/// What a command comes back with.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self { kind, error: error.into() }
    }

    pub(crate) fn refused(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Kind::Refused, error)
    }

    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Kind::Usage, error)
    }

    /// Which of the exit codes it has.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Says in front of it what was being done.
    pub(crate) fn context(self, doing: impl std::fmt::Display + Send + Sync + 'static) -> Self {
        Self { kind: self.kind, error: self.error.context(doing) }
    }

    /// Prints the line and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        // If stderr is gone, nobody is left to tell.
        let _ = writeln!(std::io::stderr(), "error: {}", self.line());
        ExitCode::from(self.kind.exit_code())
    }

    /// The whole chain of causes in one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            // Many errors have the words of their cause in theirs.
            if !line.contains(&cause) {
                line = format!("{line}: {cause}");
            }
        }
        line.replace('\n', " ")
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let kind = match &error {
            ServerError::Config(_)
            | ServerError::Keys(_)
            | ServerError::Storage(_)
            | ServerError::Transport(_)
            | ServerError::File { .. }
            | ServerError::UnknownNode { .. }
            | ServerError::Address { .. }
            | ServerError::Release { .. } => Kind::Usage,
            ServerError::Halted { .. }
            | ServerError::DiskThread(_)
            | ServerError::Entropy(_)
            | ServerError::DiskEnded
            | ServerError::TransportEnded => Kind::Refused,
        };
        Self::new(kind, error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::ConnectionString(_)
            | ClientError::File { .. }
            | ClientError::Setup { .. }
            | ClientError::Release { .. }
            | ClientError::TopicName { .. }
            | ClientError::PartitionUnknown { .. } => Kind::Usage,
            ClientError::Unreachable { .. } => Kind::Unreachable,
            ClientError::Refused(_)
            | ClientError::Metadata(_)
            | ClientError::Record(_)
            | ClientError::TimedOut { .. }
            | ClientError::EarlierFailed { .. }
            | ClientError::Dropped
            | ClientError::Unreadable { .. }
            | ClientError::Nonsense { .. } => Kind::Refused,
        };
        let is_distrust =
            matches!(&error, ClientError::Unreachable { reason } if reason.contains("certificate"));
        let failure = Self::new(kind, error);
        if is_distrust {
            failure.context("is the `ca` of the connection string that of this cluster?")
        } else {
            failure
        }
    }
}
