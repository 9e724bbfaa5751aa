//! Job templates: what an organization makes its jobs of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::job::Change;
use crate::{
    id::JobTemplateId,
    job::{Job, parameters::Parameters},
    job_template::{Filled, Template},
};

/// A job template: one of the organization's own, or one that is part of the program.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobTemplate {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// It is part of the program: nobody changes or deletes it. It has none of the fields about who did.
    pub built_in: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<JobTemplateId>,
    /// It grows with each change, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub updated_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<String>,
    /// What a job of it is asked for; only where one template is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, crate::job::parameters::Parameter>)]
    pub parameters: Parameters,
    /// Its text; only where one template is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
}

impl JobTemplate {
    /// One that is part of the program, without what is shown of one alone.
    pub fn built_in(template: &Template) -> Self {
        Self {
            name: template.name.clone(),
            description: template.description.clone(),
            built_in: true,
            id: None,
            version: None,
            created_at: None,
            created_by: None,
            updated_at: None,
            updated_by: None,
            parameters: Parameters::new(),
            document: None,
        }
    }

    /// With all that is shown of one alone.
    #[must_use]
    pub fn whole(self, template: &Template) -> Self {
        let document = Some(template.document().to_owned());
        Self { parameters: template.parameters.clone(), document, ..self }
    }
}

/// `POST /api/v1/job-templates` and `PUT /api/v1/job-templates/{template}`.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "document": "name: greet\nparameters: {name: {type: string, required: true}}\njob:\n  name: ${{ name }}\n  targets: {all: true}\n  steps:\n    - {name: greet, run: echo hello}\n" }))]
pub struct SaveJobTemplate {
    /// The template as a YAML or JSON text: `name`, `description`, `parameters` as those of a job, and `job`, a job's document
    /// with `${{ NAME }}` where values come.
    pub document: String,
    /// The version that the author has seen: when there is a newer one, nothing is saved. 0: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<i32>,
}

/// The answer to a template that was saved.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct JobTemplateSaved {
    pub change: Change,
    pub id: JobTemplateId,
    pub name: String,
    /// The version that it is now.
    pub version: i32,
}

/// `POST /api/v1/job-templates/{template}/fill`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "parameters": { "name": "nightly" } }))]
pub struct FillJobTemplate {
    /// Values of the template's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, Object>)]
    pub parameters: BTreeMap<String, serde_json::Value>,
}

/// A job that was made of a template, and is saved nowhere.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FilledJobTemplate {
    /// The job's document as YAML.
    pub document: String,
    /// The same as it was read.
    pub job: Job,
}

impl From<Filled> for FilledJobTemplate {
    fn from(filled: Filled) -> Self {
        Self { document: filled.document, job: filled.job }
    }
}
