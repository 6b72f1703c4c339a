CREATE SEQUENCE "public"."fences" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1;--> statement-breakpoint
CREATE TABLE "apply_durations" (
	"product_id" integer NOT NULL,
	"outcome" text NOT NULL,
	"bucket_le" double precision NOT NULL,
	"count" bigint NOT NULL,
	"sum_seconds" double precision NOT NULL,
	CONSTRAINT "apply_durations_product_id_outcome_bucket_le_pk" PRIMARY KEY("product_id","outcome","bucket_le")
);
--> statement-breakpoint
CREATE TABLE "attempts" (
	"began" timestamp with time zone NOT NULL,
	"fence" bigint NOT NULL,
	"instance_id" bigint NOT NULL,
	"product_id" integer NOT NULL,
	"generation" integer NOT NULL,
	"no" integer NOT NULL,
	"kind" text NOT NULL,
	"worker" text NOT NULL,
	"target" text NOT NULL,
	"ended" timestamp with time zone,
	"class" text,
	"http_status" integer,
	"said_enc" "bytea",
	"retry_at" timestamp with time zone,
	CONSTRAINT "attempts_began_fence_pk" PRIMARY KEY("began","fence")
) PARTITION BY RANGE ("began");
--> statement-breakpoint
CREATE TABLE "audit" (
	"id" bigserial PRIMARY KEY NOT NULL,
	"at" timestamp with time zone DEFAULT now() NOT NULL,
	"actor" text NOT NULL,
	"act" text NOT NULL,
	"subject" text NOT NULL,
	"reason" text,
	"detail" jsonb
);
--> statement-breakpoint
CREATE TABLE "callbacks" (
	"signed_at" timestamp with time zone NOT NULL,
	"signature" "bytea" NOT NULL,
	"id" uuid NOT NULL,
	"product_id" integer NOT NULL,
	"key_id" integer NOT NULL,
	"family" text NOT NULL,
	"activity" text NOT NULL,
	"order_key" text,
	"query" "bytea",
	"body" "bytea",
	"received_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "callbacks_same_bytes" PRIMARY KEY("signed_at","signature")
) PARTITION BY RANGE ("signed_at");
--> statement-breakpoint
CREATE TABLE "data_keys" (
	"id" serial PRIMARY KEY NOT NULL,
	"scope" text NOT NULL,
	"wrapped" "bytea" NOT NULL,
	"master_key_id" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "data_keys_one_a_scope" UNIQUE("scope")
);
--> statement-breakpoint
CREATE TABLE "dispatches" (
	"instance_id" bigint PRIMARY KEY NOT NULL,
	"product_id" integer NOT NULL,
	"queue" text DEFAULT 'provisioning' NOT NULL,
	"open_events" integer DEFAULT 1 NOT NULL,
	"since" timestamp with time zone DEFAULT now() NOT NULL,
	"due_at" timestamp with time zone,
	"dispatch" bigint DEFAULT 0 NOT NULL,
	"dispatched_at" timestamp with time zone,
	"retry_at" timestamp with time zone,
	"lease_until" timestamp with time zone,
	"fence" bigint DEFAULT 0 NOT NULL,
	"claims" integer DEFAULT 0 NOT NULL,
	"attempts" integer DEFAULT 0 NOT NULL,
	"state" text DEFAULT 'due' NOT NULL,
	"cause" text,
	"put_again" boolean DEFAULT false NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
--> statement-breakpoint
CREATE TABLE "events" (
	"id" bigserial PRIMARY KEY NOT NULL,
	"instance_id" bigint NOT NULL,
	"kind" text NOT NULL,
	"dedup_key" text NOT NULL,
	"order_id" text,
	"order_line_id" text,
	"detail" jsonb,
	"callback_id" uuid,
	"signed_at" timestamp with time zone,
	"accepted_at" timestamp with time zone DEFAULT now() NOT NULL,
	"resolved_at" timestamp with time zone,
	"applied_at" timestamp with time zone,
	"outcome" text,
	CONSTRAINT "events_one_fact" UNIQUE("instance_id","dedup_key")
);
--> statement-breakpoint
CREATE TABLE "instances" (
	"id" bigserial PRIMARY KEY NOT NULL,
	"product_id" integer NOT NULL,
	"order_key" text NOT NULL,
	"public_id" text NOT NULL,
	"order_id" text NOT NULL,
	"order_line_id" text,
	"first_callback" uuid,
	"state" text DEFAULT 'pending' NOT NULL,
	"result_code" text,
	"wanted" text DEFAULT 'serving' NOT NULL,
	"status_changes" integer DEFAULT 0 NOT NULL,
	"applied" integer DEFAULT 0 NOT NULL,
	"expires_at" timestamp with time zone,
	"plan" jsonb,
	"access_enc" "bytea",
	"alias_of" bigint,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "instances_order_key" UNIQUE("product_id","order_key"),
	CONSTRAINT "instances_public_id" UNIQUE("product_id","public_id")
) WITH (fillfactor = 80);
--> statement-breakpoint
CREATE TABLE "login_attempts" (
	"key" text PRIMARY KEY NOT NULL,
	"points" integer NOT NULL,
	"expire" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "operators" (
	"id" serial PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"password_hash" text NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"password_set_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "operators_name" UNIQUE("name")
);
--> statement-breakpoint
CREATE TABLE "product_keys" (
	"id" serial PRIMARY KEY NOT NULL,
	"product_id" integer NOT NULL,
	"class" text NOT NULL,
	"secret_enc" "bytea" NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"retired_at" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "product_queues" (
	"product_id" integer NOT NULL,
	"queue" text NOT NULL,
	"failures_running" integer DEFAULT 0 NOT NULL,
	CONSTRAINT "product_queues_product_id_queue_pk" PRIMARY KEY("product_id","queue")
);
--> statement-breakpoint
CREATE TABLE "products" (
	"id" serial PRIMARY KEY NOT NULL,
	"key" text NOT NULL,
	"name" text NOT NULL,
	"family" text DEFAULT 'saas-v2' NOT NULL,
	"provisioner" text NOT NULL,
	"http_url" text,
	"http_secret_enc" "bytea",
	"front_end_url" text,
	"in_flight_max" integer,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "products_key" UNIQUE("key")
);
--> statement-breakpoint
CREATE TABLE "reads" (
	"signed_at" timestamp with time zone NOT NULL,
	"signature" "bytea" NOT NULL,
	"id" uuid NOT NULL,
	"product_id" integer NOT NULL,
	"activity" text NOT NULL,
	"received_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "reads_same_bytes" PRIMARY KEY("signed_at","signature")
) PARTITION BY RANGE ("signed_at");
--> statement-breakpoint
CREATE TABLE "refusals" (
	"id" bigserial PRIMARY KEY NOT NULL,
	"product_id" integer NOT NULL,
	"at" timestamp with time zone DEFAULT now() NOT NULL,
	"result_code" text NOT NULL,
	"reason" text NOT NULL,
	"times" integer DEFAULT 1 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "replies" (
	"instance_id" bigint NOT NULL,
	"activity" text NOT NULL,
	"result_code" text NOT NULL,
	"body_hash" "bytea" NOT NULL,
	"first_at" timestamp with time zone NOT NULL,
	"last_at" timestamp with time zone NOT NULL,
	"times" integer DEFAULT 1 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "sessions" (
	"token_hash" "bytea" PRIMARY KEY NOT NULL,
	"operator_id" integer NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "instances" ADD CONSTRAINT "instances_alias" FOREIGN KEY ("alias_of") REFERENCES "public"."instances"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "product_keys" ADD CONSTRAINT "product_keys_product_id_products_id_fk" FOREIGN KEY ("product_id") REFERENCES "public"."products"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "sessions" ADD CONSTRAINT "sessions_operator_id_operators_id_fk" FOREIGN KEY ("operator_id") REFERENCES "public"."operators"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "attempts_instance" ON "attempts" USING btree ("instance_id","began");--> statement-breakpoint
CREATE INDEX "attempts_target" ON "attempts" USING btree ("target","began");--> statement-breakpoint
CREATE INDEX "audit_time" ON "audit" USING btree ("at");--> statement-breakpoint
CREATE INDEX "dispatches_due" ON "dispatches" USING btree ("queue","product_id","due_at") WHERE due_at is not null;--> statement-breakpoint
CREATE INDEX "dispatches_dead" ON "dispatches" USING btree ("product_id","cause") WHERE state = 'dead';--> statement-breakpoint
CREATE INDEX "dispatches_handed" ON "dispatches" USING btree ("queue","product_id","dispatched_at") WHERE dispatched_at is not null;--> statement-breakpoint
CREATE INDEX "dispatches_leased" ON "dispatches" USING btree ("product_id","lease_until") WHERE lease_until is not null;--> statement-breakpoint
CREATE INDEX "dispatches_waiting" ON "dispatches" USING btree ("retry_at") WHERE retry_at is not null;--> statement-breakpoint
CREATE INDEX "events_open" ON "events" USING btree ("instance_id","id") WHERE applied_at is null;--> statement-breakpoint
CREATE INDEX "events_order" ON "events" USING btree ("order_id");--> statement-breakpoint
CREATE INDEX "instances_order" ON "instances" USING btree ("order_id");--> statement-breakpoint
CREATE INDEX "product_keys_product" ON "product_keys" USING btree ("product_id");--> statement-breakpoint
CREATE INDEX "refusals_product" ON "refusals" USING btree ("product_id","at");--> statement-breakpoint
CREATE INDEX "replies_instance" ON "replies" USING btree ("instance_id","first_at");--> statement-breakpoint
CREATE INDEX "sessions_expiry" ON "sessions" USING btree ("expires_at");