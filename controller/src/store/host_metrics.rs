//! Samples of the hosts' load.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;
use model::{
    api::agent::{Disk, HostMetrics},
    id::{AgentId, OrgId},
};
use sqlx::{PgPool, types::Json};

use crate::error::{During, Result};

/// A sample with whose it is.
#[derive(Debug)]
pub(crate) struct Sample {
    pub org_id: OrgId,
    pub agent_id: AgentId,
    pub metrics: HostMetrics,
}

/// Stores samples, a repeated one once, and notes that their agents were seen.
pub(crate) async fn insert(pool: &PgPool, samples: &[Sample], now: Timestamp) -> Result<()> {
    let rows: Vec<serde_json::Value> = samples
        .iter()
        .map(|sample| {
            let m = &sample.metrics;
            serde_json::json!({
                "org_id": sample.org_id, "agent_id": sample.agent_id, "at": m.at,
                "cpu_percent": m.cpu_percent, "memory_total": m.memory_total_bytes,
                "memory_used": m.memory_used_bytes, "swap_total": m.swap_total_bytes,
                "swap_used": m.swap_used_bytes, "load": m.load, "uptime_seconds": m.uptime_seconds,
                "disks": m.disks, "network_received": m.network_received_bytes,
                "network_sent": m.network_sent_bytes,
            })
        })
        .collect();
    sqlx::query!(
        "with samples as (
             select * from jsonb_to_recordset($1) as s(
                 org_id uuid, agent_id uuid, at timestamptz, cpu_percent float8, memory_total int8,
                 memory_used int8, swap_total int8, swap_used int8, load float8[], uptime_seconds int8,
                 disks jsonb, network_received int8, network_sent int8)
         ), seen as (
             update agents set last_seen_at = $2 where id in (select agent_id from samples)
         )
         insert into host_metrics select * from samples on conflict do nothing",
        serde_json::Value::Array(rows),
        now.to_sqlx()
    )
    .execute(pool)
    .await
    .during("insert of host metrics")?;
    Ok(())
}

pub(crate) async fn newest(pool: &PgPool, org: OrgId, agent: AgentId) -> Result<Option<HostMetrics>> {
    let row = sqlx::query!(
        r#"select at, cpu_percent, memory_total, memory_used, swap_total, swap_used, load, uptime_seconds,
                  disks as "disks: Json<Vec<Disk>>", network_received, network_sent
           from host_metrics where org_id = $1 and agent_id = $2 order by at desc limit 1"#,
        org.0,
        agent.0
    )
    .fetch_optional(pool)
    .await
    .during("query for host metrics")?;
    Ok(row.map(|row| HostMetrics {
        at: row.at.to_jiff(),
        cpu_percent: row.cpu_percent,
        memory_total_bytes: row.memory_total,
        memory_used_bytes: row.memory_used,
        swap_total_bytes: row.swap_total,
        swap_used_bytes: row.swap_used,
        load: [0, 1, 2].map(|i| row.load.get(i).copied().unwrap_or_default()),
        uptime_seconds: row.uptime_seconds,
        disks: row.disks.0,
        network_received_bytes: row.network_received,
        network_sent_bytes: row.network_sent,
    }))
}
