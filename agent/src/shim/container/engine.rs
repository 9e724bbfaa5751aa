//! The container engine of this host, as far as a run needs it. Errors are sentences for the detail of a run.

use std::{
    collections::HashMap,
    error::Error as _,
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    container::LogOutput,
    errors::Error,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary},
    query_parameters::{
        AttachContainerOptions, CreateContainerOptions, InspectContainerOptions, KillContainerOptions,
        ListContainersOptions, RemoveContainerOptions, StartContainerOptions, WaitContainerOptions,
    },
};
use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What stands before the attempt in the name of its container.
pub(super) const NAME_PREFIX: &str = "opsconductor-";
/// How long one answer may take. A host with a slow disk mounts an image in seconds.
const ANSWER_SECONDS: u64 = 60;
/// Where an engine's socket is looked for, in this order.
const SOCKETS: [&str; 3] = ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"];
/// How often an engine that cannot be asked is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What podman calls itself among the parts of an engine.
const PODMAN: &str = "Podman Engine";
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;
/// From here on an engine says that it is in trouble itself, and not what came of what it was asked.
const SERVER_ERROR: u16 = 500;

/// What comes out of a container.
pub(super) type Attached = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// An engine that has answered.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    api: Docker,
    pub(super) socket: PathBuf,
    /// It reads a filter of system calls from a file, where others have it told.
    pub(super) wants_files: bool,
}

/// An image that this host has.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) id: String,
    /// Folders for which the engine makes volumes, which can be written whatever the container may else.
    pub(super) volumes: Vec<String>,
}

/// A container that was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) id: String,
    /// What the engine says of it that it could not do.
    pub(super) warnings: Vec<String>,
}

/// Why a container does not start.
#[derive(Debug, Clone)]
pub(super) struct NotStarted {
    pub(super) why: String,
    /// The engine did not say so: the container may run, or begin yet.
    pub(super) may_run: bool,
}

/// Where this process looks: the one that the host's policy names, or all that are usual. A user's own engine has its socket
/// where the host's runtime folders of users are; the shim has no variables that could say otherwise.
pub(super) fn sockets(named: &str) -> Vec<PathBuf> {
    if !named.is_empty() {
        return vec![named.into()];
    }
    let mut sockets: Vec<PathBuf> = SOCKETS.iter().map(PathBuf::from).collect();
    let own = nix::unistd::geteuid();
    if !own.is_root() {
        sockets.push(format!("/run/user/{own}/podman/podman.sock").into());
    }
    sockets
}

impl Engine {
    /// The first engine that answers.
    pub(super) async fn find(named: &str) -> Result<Self, String> {
        let mut tried = Vec::new();
        for socket in sockets(named) {
            match Self::at(&socket).await {
                Ok(engine) => return Ok(engine),
                Err(why) => tried.push(format!("{} ({why})", socket.display())),
            }
        }
        Err(format!("no container engine answers; looked at {}", tried.join(", ")))
    }

    /// The engine behind this socket.
    pub(super) async fn at(socket: &Path) -> Result<Self, String> {
        if !socket.exists() {
            return Err("not there".to_owned());
        }
        let path = socket.to_str().ok_or("its name is not UTF-8")?;
        let api = Docker::connect_with_unix(path, ANSWER_SECONDS, API_DEFAULT_VERSION);
        let api = api.map_err(|error| sentence(&error))?;
        let api = api.negotiate_version().await.map_err(|error| sentence(&error))?;
        let parts = api.version().await.map_err(|error| sentence(&error))?.components;
        let wants_files = parts.iter().flatten().any(|part| part.name == PODMAN);
        Ok(Self { api, socket: socket.to_owned(), wants_files })
    }

    /// The image of this name, which this host has to have.
    pub(super) async fn image(&self, name: &str) -> Result<Image, String> {
        match self.api.inspect_image(name).await {
            Ok(image) => {
                let id = image.id.ok_or_else(|| format!("the engine gives the image '{name}' no id"))?;
                let volumes = image.config.and_then(|config| config.volumes).unwrap_or_default();
                Ok(Image { id, volumes })
            }
            Err(error) if has_status(&error, NOT_FOUND) => {
                Err(format!("it has no image '{name}', and images are not fetched for a run"))
            }
            Err(error) => Err(format!("the image '{name}' cannot be looked up: {}", sentence(&error))),
        }
    }

    /// Makes a container.
    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<Made, String> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
        let made = self.api.create_container(Some(options), body).await;
        made.map(|made| Made { id: made.id, warnings: made.warnings })
            .map_err(|error| format!("it cannot be made: {}", sentence(&error)))
    }

    /// The containers that have this label, running or not.
    pub(super) async fn labelled(&self, label: &str, value: &str) -> Result<Vec<ContainerSummary>, String> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let found = self.api.list_containers(Some(options)).await;
        found.or_else(without_states).map_err(|error| sentence(&error))
    }

    /// What the engine knows of it; none when it has none of that name.
    pub(super) async fn look(&self, name: &str) -> Result<Option<ContainerInspectResponse>, String> {
        let found = self.api.inspect_container(name, None::<InspectContainerOptions>).await;
        match found.or_else(without_states) {
            Ok(found) => Ok(Some(found)),
            Err(error) if has_status(&error, NOT_FOUND) => Ok(None),
            Err(error) => Err(format!("it cannot be looked at: {}", sentence(&error))),
        }
    }

    /// Its output from now on.
    pub(super) async fn attach(&self, name: &str) -> Result<Attached, String> {
        let options =
            AttachContainerOptions { stream: true, stdout: true, stderr: true, ..Default::default() };
        let attached = self.api.attach_container(name, Some(options)).await;
        let attached = attached.map_err(|error| format!("its output cannot be had: {}", sentence(&error)))?;
        Ok(attached.output)
    }

    pub(super) async fn start(&self, name: &str) -> Result<(), NotStarted> {
        let started = self.api.start_container(name, None::<StartContainerOptions>).await;
        started.map_err(|error| NotStarted {
            why: sentence(&error),
            may_run: !matches!(error, Error::DockerResponseServerError { status_code, .. }
                if status_code < SERVER_ERROR),
        })
    }

    /// Sends a signal; false when it does not run any more.
    pub(super) async fn signal(&self, name: &str, signal: &str) -> Result<bool, String> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.api.kill_container(name, Some(options)).await {
            Ok(()) => Ok(true),
            Err(error) if has_status(&error, NOT_FOUND) || has_status(&error, CONFLICT) => Ok(false),
            Err(error) => Err(sentence(&error)),
        }
    }

    /// Removes it with what it has for itself, whether it runs or not. One that is not there is removed.
    pub(super) async fn remove(&self, name: &str) -> Result<(), String> {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        match self.api.remove_container(name, Some(options)).await {
            Ok(()) => {}
            Err(error) if has_status(&error, NOT_FOUND) => {}
            Err(error) => return Err(sentence(&error)),
        }
        match self.look(name).await? {
            None => Ok(()),
            Some(_) => Err("it is still there".to_owned()),
        }
    }

    /// Waits until it does not run; none when it is gone. An engine that is away is waited for.
    pub(super) async fn ended(self, name: String) -> Option<ContainerInspectResponse> {
        loop {
            let wait = self.api.wait_container(&name, None::<WaitContainerOptions>);
            // An error is a code other than 0, an engine that went away, or one that took too long to answer.
            let answer = Box::pin(wait).next().await;
            match self.look(&name).await {
                Ok(None) => return None,
                Ok(Some(found)) if !is_running(&found) => return Some(found),
                Ok(Some(_)) if matches!(answer, Some(Err(Error::RequestTimeoutError))) => {}
                Ok(Some(_)) | Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }
}

fn is_running(found: &ContainerInspectResponse) -> bool {
    let state = found.state.as_ref();
    state.is_some_and(|state| state.running == Some(true) || state.paused == Some(true))
}

/// Reads an answer again without the words for how containers are, which nothing here needs: podman has one that bollard
/// takes no answer with, `stopped`, for those that ended and whose rest it has not cleared away.
fn without_states<T: DeserializeOwned>(error: Error) -> Result<T, Error> {
    let Error::JsonDataError { contents, .. } = &error else { return Err(error) };
    let Ok(mut answer) = serde_json::from_str::<Value>(contents) else { return Err(error) };
    let containers = match &mut answer {
        Value::Array(containers) => containers.iter_mut().collect(),
        container => vec![container],
    };
    for container in containers.into_iter().filter_map(Value::as_object_mut) {
        match container.get_mut("State") {
            Some(Value::Object(state)) => _ = state.remove("Status"),
            _ => _ = container.remove("State"),
        }
    }
    serde_json::from_value(answer).map_err(|_| error)
}

fn has_status(error: &Error, status: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// The error with its sources, in one line.
fn sentence(error: &Error) -> String {
    let mut text = match error {
        Error::DockerResponseServerError { status_code, message } => {
            format!("the engine answers {status_code}: {}", message.trim())
        }
        Error::RequestTimeoutError => format!("the engine did not answer within {ANSWER_SECONDS} s"),
        error => error.to_string(),
    };
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error that bollard has for an answer that its types do not take.
    fn refused(contents: &str) -> Error {
        Error::JsonDataError { message: String::new(), contents: contents.to_owned(), column: 0 }
    }

    #[test]
    fn a_state_that_is_not_known_spoils_no_answer() {
        let looked = r#"{"Id": "c0ffee", "State": {"Status": "stopped", "Running": false, "ExitCode": 7}}"#;
        assert!(
            serde_json::from_str::<ContainerInspectResponse>(looked).is_err(),
            "without_states has no use"
        );
        let looked: ContainerInspectResponse = without_states(refused(looked)).unwrap();
        assert_eq!(looked.state.unwrap().exit_code, Some(7));

        let listed = r#"[{"Id": "c0ffee", "State": "stopped"}, {"Id": "decaf", "State": "running"}]"#;
        assert!(serde_json::from_str::<Vec<ContainerSummary>>(listed).is_err(), "without_states has no use");
        let listed: Vec<ContainerSummary> = without_states(refused(listed)).unwrap();
        assert_eq!(listed[1].id.as_deref(), Some("decaf"));

        for bad in ["", "[", "7", r#"{"Id": 7, "State": {"Status": "stopped"}}"#] {
            assert!(without_states::<ContainerInspectResponse>(refused(bad)).is_err(), "{bad}");
        }
        assert!(without_states::<()>(Error::RequestTimeoutError).is_err());
    }
}
