// The objects of the API, from its own description.

import type { components } from "./openapi.d.ts";

type Schemas = components["schemas"];

export type Job = Schemas["Job"];
export type JobSummary = Schemas["JobSummary"];
export type JobCounts = Schemas["JobCounts"];
export type Account = Schemas["Account"];
export type Attention = Schemas["Attention"];
export type Overview = Schemas["OperationsOverview"];
export type UsageReport = Schemas["UsageReport"];
export type ApiKey = Schemas["ApiKey"];
export type ApiKeyWithSecret = Schemas["ApiKeyWithSecret"];
export type Attempt = Schemas["Attempt"];
export type Document = Schemas["Document"];
export type DocumentCounts = Schemas["DocumentCounts"];
export type Collection = Schemas["Collection"];
export type Chunk = Schemas["Chunk"];
export type PageText = Schemas["PageText"];
export type PageBox = Schemas["PageBox"];
export type Hit = Schemas["Hit"];
export type SearchExplanation = Schemas["SearchExplanation"];
export type Citation = Schemas["Citation"];
export type Model = Schemas["Model"];
export type GpuWorker = Schemas["GpuWorker"];
export type Delivery = Schemas["Delivery"];
export type Webhook = Schemas["Webhook"];
export type Queue = Schemas["Queue"];
export type ChatEntry = Schemas["SessionEntry"];
export type ChatTurn = Schemas["SessionTurn"];
export type ChatTurns = Schemas["SessionTurns"];
export type DeadLetter = Schemas["DeadLetter"];
export type Worker = Schemas["Worker"];
export type Stats = Schemas["Stats"];
export interface List<T> {
  data: T[];
  has_more: boolean;
  next: string | null;
}
