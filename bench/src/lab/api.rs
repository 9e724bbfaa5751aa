//! The HTTP API, as any client uses it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use model::{
    api::{
        auth::{AcceptInvitation, Entered, Login, Secret, Setup, Tokens},
        enroll_token::{CreateEnrollToken, CreatedEnrollToken},
        execution::{CreateExecution, Execution, Targets},
        job::{ExecuteJob, Results, SaveJob, SavedJob},
        output::{Data, OutputPage},
        problem::Problem,
        role::{CreateRoleBinding, RoleBinding},
        schedule::{SaveSchedule, Schedule},
        token::{CreateApiToken, CreatedApiToken},
        user::{CreateInvitation, CreatedOneTimeToken},
    },
    command::{Command, Program},
    id::ExecutionId,
};
use reqwest::{Response, header};
use serde::{Serialize, de::DeserializeOwned};

/// Of everybody who is made here.
const PASSWORD: &str = "a password of the load generator";
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(30);

/// A client with the administrator's token.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Api {
    /// A client of the controller at `base`, as `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When the HTTP library cannot be set up.
    pub(crate) fn new(base: String, token: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(WITHIN)
            .build()
            .context("cannot set up the HTTP client")?;
        Ok(Self { http, base, token })
    }

    /// The bearer token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Whether the controller serves.
    pub(crate) async fn is_ready(&self) -> bool {
        let answer =
            self.http.get(format!("{}/ready", self.base)).timeout(Duration::from_secs(1)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Sets the installation up; a client with a token of its administrator.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn set_up(self, setup_token: String) -> anyhow::Result<Self> {
        let setup = Setup {
            token: Secret::new(setup_token),
            organization: None,
            user: "bench".to_owned(),
            password: Secret::new(PASSWORD),
        };
        let tokens: Tokens = self.post("setup", &setup).await?;
        let access = tokens.access_token.context("the answer has no access token")?;
        let session = Self { token: access.expose().to_owned(), ..self };
        let wanted = CreateApiToken { name: "api".to_owned(), ..CreateApiToken::default() };
        let created: CreatedApiToken = session.post("tokens", &wanted).await?;
        Ok(Self { token: created.token.expose().to_owned(), ..session })
    }

    /// Starts an ad-hoc command.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn start(&self, targets: Targets, argv: &[&str]) -> anyhow::Result<Execution> {
        let program = Program::Argv(argv.iter().map(|&word| word.to_owned()).collect());
        let command = Command { cwd: Some("/".to_owned()), timeout_seconds: 120, ..Command::new(program) };
        self.start_command(targets, command).await
    }

    /// Starts any command.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn start_command(
        &self,
        targets: Targets,
        command: Command,
    ) -> anyhow::Result<Execution> {
        let request =
            CreateExecution { targets, command, rollout: None, start_within_seconds: None, priority: None };
        self.post("executions", &request).await
    }

    /// Saves a job.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn save_job(&self, document: String) -> anyhow::Result<()> {
        let job = SaveJob { document, comment: None, expected_version: None, dry_run: false };
        self.post::<SavedJob>("jobs", &job).await.map(drop)
    }

    /// Saves a schedule.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn save_schedule(&self, schedule: &SaveSchedule) -> anyhow::Result<()> {
        self.post::<Schedule>("schedules", schedule).await.map(drop)
    }

    /// Starts a job on the hosts that it names.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn execute(&self, job: &str) -> anyhow::Result<Execution> {
        self.post(&format!("jobs/{job}/execute"), &ExecuteJob::default()).await
    }

    /// Starts a job on the hosts that it names, with these values.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn execute_with(
        &self,
        job: &str,
        values: serde_json::Value,
    ) -> anyhow::Result<Execution> {
        self.post(&format!("jobs/{job}/execute"), &serde_json::json!({ "parameters": values })).await
    }

    /// A page of the matrix of an execution, with what `query` says.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn results(&self, id: ExecutionId, query: &str) -> anyhow::Result<Results> {
        self.get(&format!("executions/{id}/results?{query}")).await
    }

    /// Makes an enroll token.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn enroll_token(&self, token: &CreateEnrollToken) -> anyhow::Result<CreatedEnrollToken> {
        self.post("enroll-tokens", token).await
    }

    /// Makes somebody a member of the organization, without any role.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn person(&self, name: &str) -> anyhow::Result<()> {
        let invitation: CreatedOneTimeToken =
            self.post("invitations", &CreateInvitation { role: None, ttl_seconds: None }).await?;
        let accept = AcceptInvitation {
            token: invitation.token,
            user: name.to_owned(),
            password: Secret::new(PASSWORD),
            code: None,
        };
        self.post::<Entered>("auth/accept-invitation", &accept).await.map(drop)
    }

    /// Gives somebody a role, for the hosts that the selector matches or for all.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn bind(&self, user: &str, role: &str, hosts: Option<String>) -> anyhow::Result<()> {
        let binding = CreateRoleBinding {
            role: role.to_owned(),
            user: Some(user.to_owned()),
            group: None,
            service_account: None,
            hosts,
            jobs: None,
        };
        self.post::<RoleBinding>("role-bindings", &binding).await.map(drop)
    }

    /// The access token of a session that begins here.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn log_in(&self, user: &str) -> anyhow::Result<String> {
        let login = Login {
            user: user.to_owned(),
            password: Secret::new(PASSWORD),
            code: None,
            organization: None,
            cookies: false,
        };
        let tokens: Tokens = self.post("auth/login", &login).await?;
        Ok(tokens.access_token.context("the answer has no access token")?.expose().to_owned())
    }

    /// One execution.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn execution(&self, id: ExecutionId) -> anyhow::Result<Execution> {
        self.get(&format!("executions/{id}")).await
    }

    /// The output of an execution that has ended, as text, once all of it is stored.
    ///
    /// # Errors
    /// When the controller refuses, or the output is not text or not there in time.
    pub(crate) async fn text(&self, id: ExecutionId) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            let page: OutputPage = self.get(&format!("executions/{id}/output")).await?;
            if page.end {
                let texts = page.items.into_iter().map(|piece| match piece.data {
                    Data::Text(text) => Ok(text),
                    other => Err(anyhow!("the output is not text: {other:?}")),
                });
                return texts.collect();
            }
            ensure!(begun.elapsed() < WITHIN, "the output of execution {id} is not stored");
        }
    }

    /// The live output of an execution as Server-Sent Events.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(crate) async fn follow(&self, id: ExecutionId) -> anyhow::Result<Response> {
        let answer = self
            .http
            .get(format!("{}/api/v1/executions/{id}/output?follow=true", self.base))
            .header(header::ACCEPT, "text/event-stream")
            .bearer_auth(&self.token)
            .send()
            .await
            .context("the controller does not answer")?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.http.get(format!("{}/api/v1/{path}", self.base)).timeout(WITHIN);
        let answer =
            request.bearer_auth(&self.token).send().await.context("the controller does not answer")?;
        read(answer).await
    }

    async fn post<T: DeserializeOwned>(&self, noun: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let request = self.http.post(format!("{}/api/v1/{noun}", self.base)).timeout(WITHIN).json(body);
        let answer =
            request.bearer_auth(&self.token).send().await.context("the controller does not answer")?;
        read(answer).await
    }
}

async fn read<T: DeserializeOwned>(answer: Response) -> anyhow::Result<T> {
    if !answer.status().is_success() {
        return Err(refusal(answer).await);
    }
    answer.json().await.context("the controller's answer cannot be read")
}

async fn refusal(answer: Response) -> anyhow::Error {
    let status = answer.status();
    match answer.json::<Problem>().await {
        Ok(problem) => anyhow!("the controller refused ({status}): {}", problem.detail),
        Err(_) => anyhow!("the controller refused ({status})"),
    }
}

/// Fails unless the execution succeeded on all of `targets`.
///
/// # Errors
/// With what happened instead.
pub(crate) fn check_succeeded(execution: &Execution, targets: usize) -> anyhow::Result<()> {
    let succeeded = usize::try_from(execution.runs.succeeded).unwrap_or(0);
    if succeeded != targets || execution.runs.total != execution.runs.succeeded {
        bail!("execution {} did not succeed on {targets} targets: {:?}", execution.id, execution.runs);
    }
    Ok(())
}
