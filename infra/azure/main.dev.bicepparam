// Development: nothing runs that is not asked, nothing is private, a day's logs have a limit.

using 'main.bicep'

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', 'sync-dev')
param location = readEnvironmentVariable('AZURE_LOCATION', '')
param stage = 'dev'

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
param maximumInstanceCount = 40
param alwaysReady = []
param zoneRedundant = false
param logRetentionInDays = 30
param logQuotaInGigabytes = 1
param softDeleteDays = 7

param privateNetworking = false
param publicHttp = true

param alertEmails = json(readEnvironmentVariable('UDS_ALERT_EMAILS', '[]'))
param release = readEnvironmentVariable('UDS_RELEASE', '')
param lineageUrl = readEnvironmentVariable('UDS_LINEAGE_URL', '')
