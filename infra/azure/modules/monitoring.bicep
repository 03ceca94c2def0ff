// Where logs, traces and metrics go: one Log Analytics workspace, and an Application Insights component that writes into it.

@description('Name of the Log Analytics workspace.')
param workspaceName string

@description('Name of the Application Insights component.')
param componentName string

@description('Azure region.')
param location string

@description('Tags of every resource.')
param tags object

@description('Days that logs are kept. The first 31 are part of the price of ingestion.')
@minValue(30)
@maxValue(730)
param retentionInDays int

@description('Gigabytes a day after which ingestion stops until the next day; -1 for no limit. A limit saves money and blinds the alerts.')
param dailyQuotaInGigabytes int

resource workspace 'Microsoft.OperationalInsights/workspaces@2025-02-01' = {
  name: workspaceName
  location: location
  tags: tags
  properties: {
    sku: {
      name: 'PerGB2018'
    }
    retentionInDays: retentionInDays
    workspaceCapping: {
      dailyQuotaGb: dailyQuotaInGigabytes
    }
    features: {
      // Writing and reading take an Entra identity; the workspace's shared keys are void.
      disableLocalAuth: true
      enableLogAccessUsingOnlyResourcePermissions: true
    }
  }
}

resource component 'Microsoft.Insights/components@2020-02-02' = {
  name: componentName
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    IngestionMode: 'LogAnalytics'
    // The connection string is an address then, and no key: sending takes the role Monitoring Metrics Publisher.
    DisableLocalAuth: true
  }
}

// The type has no version without "preview" that knows category groups.
resource workspaceDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-itself'
  scope: workspace
  properties: {
    workspaceId: workspace.id
    logs: [
      {
        // Who asked which question of the logs.
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

output workspaceId string = workspace.id
output workspaceName string = workspace.name
output componentName string = component.name
