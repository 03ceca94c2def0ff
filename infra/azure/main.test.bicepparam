// Test: as dev, with the network of prod, so that what is private there is tried here. Service Bus stays public, behind Entra alone.

using 'main.bicep'

param environmentName = readEnvironmentVariable('AZURE_ENV_NAME', 'sync-test')
param location = readEnvironmentVariable('AZURE_LOCATION', '')
param stage = 'test'

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
param logQuotaInGigabytes = 2
param softDeleteDays = 7

param privateNetworking = true
param publicHttp = true

param alertEmails = json(readEnvironmentVariable('UDS_ALERT_EMAILS', '[]'))
param release = readEnvironmentVariable('UDS_RELEASE', '')
param lineageUrl = readEnvironmentVariable('UDS_LINEAGE_URL', '')
