//! The fuzz targets as plain functions. `scripts/fuzz` calls them through `main.rs`, and the project's tests call them
//! with every file of `corpus/<target>/`.
//!
//! A target accepts any input. It panics if a format breaks a promise.

mod codecs;
mod configuration;
mod engine_parts;
mod hosts;
mod info_files;
mod postgres;
mod served;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("archive_info", info_files::archive_info),
    ("backup_info", info_files::backup_info),
    ("block_map", codecs::block_map),
    ("block_plan", engine_parts::block_plan),
    ("cipher_header", codecs::cipher_header),
    ("claim", info_files::claim),
    ("cluster_answers", engine::fuzzing::cluster_answers),
    ("configuration", configuration::configuration),
    ("decompress_bz2", codecs::decompress_bz2),
    ("decompress_gz", codecs::decompress_gz),
    ("decompress_lz4", codecs::decompress_lz4),
    ("decompress_zst", codecs::decompress_zst),
    ("decrypt", codecs::decrypt),
    ("history", postgres::history),
    ("ini_info", info_files::ini_info),
    ("json", info_files::json),
    ("json_answer", engine_parts::json_answer),
    ("known_hosts", engine_parts::known_hosts),
    ("label", info_files::label),
    ("lock_file", info_files::lock_file),
    ("manifest", info_files::manifest),
    ("page", postgres::page),
    ("page_errors", info_files::page_errors),
    ("passfile", engine_parts::passfile),
    ("pg_control", postgres::pg_control),
    ("remote_answer", hosts::remote_answer),
    ("remote_greeting", hosts::remote_greeting),
    ("remote_pack", hosts::remote_pack),
    ("remote_request", hosts::remote_request),
    ("repository_answers", engine::fuzzing::repository_answers),
    ("served_data", served::served_data),
    ("served_frames", engine::fuzzing::served_frames),
    ("served_jobs", engine_parts::served_jobs),
    ("served_requests", engine_parts::served_requests),
    ("server_clients", cli::server::fuzzing::server_clients),
    ("server_frames", engine::fuzzing::server_frames),
    ("sftp_packet", engine_parts::sftp_packet),
    ("spool", info_files::spool),
    ("target_time", engine_parts::target_time),
    ("verify_records", engine::fuzzing::verify_records),
    ("wal_header", postgres::wal_header),
    ("wal_name", info_files::wal_name),
    ("wal_records", postgres::wal_records),
    ("xml_answer", engine_parts::xml_answer),
];

/// Runs the target with this name.
pub fn run(name: &str, data: &[u8]) {
    match TARGETS.iter().find(|(known, _)| *known == name) {
        Some((_, function)) => function(data),
        None => panic!("no fuzz target {name}"),
    }
}
