// Production: private data services, zones, one instance that answers HTTP at once, logs kept for a quarter and never cut off. Service Bus
// stays public, behind Entra alone: its messages hold ids and no data, and Premium costs about 70 times as much. Set it where rules ask.

using 'main.bicep'

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', 'sync-prod')
param location = readEnvironmentVariable('AZURE_LOCATION', '')
param stage = 'prod'

param databricksHost = readEnvironmentVariable('UDS_DATABRICKS_HOST', '')
param databricksJobs = readEnvironmentVariable('UDS_DATABRICKS_JOBS', '')
param catalog = readEnvironmentVariable('UDS_CATALOG', 'main')
param auditSchema = readEnvironmentVariable('UDS_SCHEMA', 'uds')
param volume = readEnvironmentVariable('UDS_VOLUME', 'runs')
param databricksPrincipalId = readEnvironmentVariable('UDS_DATABRICKS_PRINCIPAL_ID', '')

param secretScope = readEnvironmentVariable('UDS_SECRET_SCOPE', 'uds')
param webhookSecret = readEnvironmentVariable('UDS_WEBHOOK_SECRET', '')
param secretsOfficerPrincipalId = readEnvironmentVariable('UDS_SECRETS_OFFICER_ID', '')
param authClientId = readEnvironmentVariable('UDS_AUTH_CLIENT_ID', '')

param serviceBusTier = 'Standard'
param instanceMemoryInMegabytes = 2048
param maximumInstanceCount = 100
param alwaysReady = [
  {
    name: 'http'
    instanceCount: 1
  }
]
param zoneRedundant = true
param logRetentionInDays = 90
param logQuotaInGigabytes = -1
param softDeleteDays = 90

param privateNetworking = true
param publicHttp = true

param alertEmails = json(readEnvironmentVariable('UDS_ALERT_EMAILS', '[]'))
param release = readEnvironmentVariable('UDS_RELEASE', '')
param lineageUrl = readEnvironmentVariable('UDS_LINEAGE_URL', '')
