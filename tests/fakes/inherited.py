"""Database files as New API's first revision and One API make them: their tables, columns and quirks, made-up rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

NEW_API: Final = """
CREATE TABLE channels(id integer, type integer DEFAULT 0, key text NOT NULL, open_ai_organization text, test_model text,
  status integer DEFAULT 1, name text, weight integer DEFAULT 0, created_time integer, test_time integer,
  response_time integer, base_url text DEFAULT "", other text, balance real, balance_updated_time integer, models text,
  "group" varchar(64) DEFAULT "default", used_quota integer DEFAULT 0, model_mapping varchar(1024) DEFAULT "",
  status_code_mapping varchar(1024) DEFAULT "", priority integer DEFAULT 0, auto_ban integer DEFAULT 1, other_info text,
  PRIMARY KEY(id));
CREATE TABLE tokens(id integer, user_id integer, key char(48), status integer DEFAULT 1, name text,
  created_time integer, accessed_time integer, expired_time integer DEFAULT -1, remain_quota integer DEFAULT 0,
  unlimited_quota numeric DEFAULT false, model_limits_enabled numeric DEFAULT false,
  model_limits varchar(1024) DEFAULT "", allow_ips text DEFAULT "", used_quota integer DEFAULT 0,
  "group" text DEFAULT "", deleted_at datetime, PRIMARY KEY(id));
CREATE UNIQUE INDEX idx_tokens_key ON tokens(key);
CREATE TABLE users(id integer, username text UNIQUE, password text NOT NULL, display_name text, role integer DEFAULT 1,
  status integer DEFAULT 1, email text, github_id text, wechat_id text, telegram_id text, access_token char(32),
  quota integer DEFAULT 0, used_quota integer DEFAULT 0, request_count integer DEFAULT 0,
  "group" varchar(64) DEFAULT "default", aff_code varchar(32), aff_count integer DEFAULT 0, aff_quota integer DEFAULT 0,
  aff_history integer DEFAULT 0, inviter_id integer, deleted_at datetime, PRIMARY KEY(id));
CREATE TABLE options(key text, value text, PRIMARY KEY(key));
CREATE TABLE abilities("group" varchar(64), model varchar(64), channel_id integer, enabled numeric,
  priority integer DEFAULT 0, weight integer DEFAULT 0, PRIMARY KEY("group", model, channel_id));
CREATE TABLE logs(id integer, user_id integer, created_at integer, type integer, content text, username text DEFAULT "",
  token_name text DEFAULT "", model_name text DEFAULT "", quota integer DEFAULT 0, prompt_tokens integer DEFAULT 0,
  completion_tokens integer DEFAULT 0, use_time integer DEFAULT 0, is_stream numeric DEFAULT false, channel_id integer,
  token_id integer DEFAULT 0, other text, PRIMARY KEY(id));
CREATE TABLE vendors(id integer, name text, icon text, PRIMARY KEY(id));
ALTER TABLE tokens ADD COLUMN fancy text DEFAULT "mine";
INSERT INTO vendors VALUES (1, 'kept', NULL);
INSERT INTO options VALUES ('ModelRatio', '{"gpt-4o": 1.25}');
INSERT INTO users(id, username, password, role, quota, "group") VALUES (1, 'root', 'hash', 100, 100000000, 'vip');
INSERT INTO users(id, username, password, status, quota) VALUES (2, 'banned', 'hash', 2, 5);
INSERT INTO users(id, username, password, deleted_at) VALUES (3, 'gone', 'hash', '2024-10-17 12:00:00.123456789+08:00');
INSERT INTO tokens(id, user_id, key, name, remain_quota, model_limits_enabled, model_limits, allow_ips, "group")
  VALUES (1, 1, 'plainkey', 'one', 1000, 1, 'gpt-4o, gpt-4o-mini,', '10.0.0.1,
 10.1.0.0/16', 'other');
INSERT INTO tokens(id, user_id, key, status, name, unlimited_quota, expired_time)
  VALUES (2, 2, 'paddedkey                 ', NULL, NULL, 'true', NULL);
INSERT INTO tokens(id, user_id, key, status, model_limits_enabled, model_limits, allow_ips)
  VALUES (3, 3, 'exhausted', 4, 1, '', 'nonsense');
INSERT INTO tokens(id, user_id, key, status) VALUES (4, 99, 'expired', 3);
INSERT INTO tokens(id, user_id, key, deleted_at) VALUES (5, 1, 'deleted', '2024-10-17 12:00:00+08:00');
INSERT INTO channels(id, type, key, name, models, "group", model_mapping, weight, priority)
  VALUES (1, 1, 'upstream-key', 'main', ' gpt-4o,,gpt-4o-mini ,', 'default, vip', '{"gpt-4": "gpt-4o"}', 3, 9);
INSERT INTO channels(id, type, key, status, auto_ban, base_url, models, "group", other_info)
  VALUES (2, 14, 'k1', 3, 0, NULL, NULL, NULL, '{}');
INSERT INTO abilities VALUES ('default', 'gpt-4o', 1, 1, 9, 3);
"""
ONE_API: Final = """
CREATE TABLE channels(id integer, type integer DEFAULT 0, key text, status integer DEFAULT 1, name text,
  weight integer DEFAULT 0, created_time integer, test_time integer, response_time integer, base_url text DEFAULT "",
  other text, balance real, balance_updated_time integer, models text, "group" varchar(32) DEFAULT "default",
  used_quota integer DEFAULT 0, model_mapping varchar(1024) DEFAULT "", priority integer DEFAULT 0, config text,
  system_prompt text, PRIMARY KEY(id));
CREATE TABLE tokens(id integer, user_id integer, key char(48), status integer DEFAULT 1, name text,
  created_time integer, accessed_time integer, expired_time integer DEFAULT -1, remain_quota integer DEFAULT 0,
  unlimited_quota numeric DEFAULT false, used_quota integer DEFAULT 0, models text, subnet text DEFAULT "",
  PRIMARY KEY(id));
CREATE TABLE users(id integer, username text UNIQUE, password text NOT NULL, display_name text, role integer DEFAULT 1,
  status integer DEFAULT 1, email text, github_id text, wechat_id text, lark_id text, oidc_id text,
  access_token char(32), quota integer DEFAULT 0, used_quota integer DEFAULT 0, request_count integer DEFAULT 0,
  "group" varchar(32) DEFAULT "default", aff_code varchar(32), inviter_id integer, PRIMARY KEY(id));
CREATE TABLE logs(id integer, user_id integer, created_at integer, type integer, content text, username text DEFAULT "",
  token_name text DEFAULT "", model_name text DEFAULT "", quota integer DEFAULT 0, prompt_tokens integer DEFAULT 0,
  completion_tokens integer DEFAULT 0, channel_id integer, request_id text DEFAULT "", elapsed_time integer DEFAULT 0,
  is_stream numeric DEFAULT false, system_prompt_reset numeric DEFAULT false, PRIMARY KEY(id));
INSERT INTO users(id, username, password, quota) VALUES (1, 'root', 'hash', 500000000000000);
INSERT INTO tokens(id, user_id, key, name, remain_quota, models, subnet)
  VALUES (1, 1, 'oldkey', 'old', 700, 'gpt-4o,gpt-4', '10.0.0.0/8,192.168.0.0/16');
INSERT INTO channels(id, type, key, name, models, config, system_prompt)
  VALUES (1, 33, 'a|b|c', 'aws', 'claude', '{"region": "us-east-1"}', 'be brief');
"""


def make(path: Path, script: str) -> None:
    """Writes the file."""
    with sqlite3.connect(path) as raw:
        raw.executescript(script)
    raw.close()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """What a plain reader sees in it."""
    with sqlite3.connect(path) as raw:
        found = raw.execute(query).fetchall()
    raw.close()
    return found
