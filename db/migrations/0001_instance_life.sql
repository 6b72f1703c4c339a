CREATE TABLE "api_keys" (
	"id" serial PRIMARY KEY NOT NULL,
	"product_id" integer NOT NULL,
	"scopes" text[] NOT NULL,
	"hash" "bytea" NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"retired_at" timestamp with time zone,
	"last_used_at" timestamp with time zone,
	CONSTRAINT "api_keys_hash" UNIQUE("hash")
);
--> statement-breakpoint
CREATE TABLE "open_api_limits" (
	"key" text PRIMARY KEY NOT NULL,
	"points" integer NOT NULL,
	"expire" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "orders" (
	"product_id" integer NOT NULL,
	"order_id" text NOT NULL,
	"reply_enc" "bytea" NOT NULL,
	"fetched_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "orders_product_id_order_id_pk" PRIMARY KEY("product_id","order_id")
);
--> statement-breakpoint
ALTER TABLE "product_keys" ADD COLUMN "access_key_id" text;--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "http_secret_next_enc" "bytea";--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "module_path" text;--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "charging" text DEFAULT 'period' NOT NULL;--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "open_api_url" text;--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "change_rule" text DEFAULT 'allow' NOT NULL;--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "check_on_failure" text DEFAULT 'allow' NOT NULL;--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "release_grace_days" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "products" ADD COLUMN "paused_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_product_id_products_id_fk" FOREIGN KEY ("product_id") REFERENCES "public"."products"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "api_keys_product" ON "api_keys" USING btree ("product_id");